"""What the tests of the Python client share: requests, results, and a producer that stands for a pipeline."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from connectors.kafka.client import client_options
from connectors.kafka.producer import Outgoing, Producer
from connectors.kafka.reader import TopicReader
from connectors.kafka.topics_admin import create_topics
from connectors.settings import Settings
from schemas import LLMRequest, LLMResult
from schemas.codec import SingleObjectCodec
from schemas.delta import Delta
from schemas.envelope import cloud_event
from schemas.request import Message
from schemas.vocabulary import Role, State

CODEC = SingleObjectCodec()


def request(request_id: str) -> LLMRequest:
    return LLMRequest(request_id=request_id, messages=[Message(role=Role.USER, content="hi")])


def result(request_id: str, version: int = 2) -> LLMResult:
    now = datetime.now(UTC)
    return LLMResult(
        request_id=request_id, status=State.CANCELLED, state_version=version, submitted_at=now, finished_at=now
    )


@asynccontextmanager
async def answering(settings: Settings) -> AsyncIterator[Producer]:
    """Topics, and a producer for results that stand for a pipeline."""
    await create_topics(settings, settings.topics.specs([]))
    async with Producer(client_options(settings)) as producer:
        yield producer


async def answer(producer: Producer, settings: Settings, *request_ids: str) -> None:
    for name in request_ids:
        headers = cloud_event(type="test", source="/test", key=name, id=f"{name}-2")
        value = CODEC.encode(result(name))
        await producer.send(Outgoing(topic=settings.topics.results, key=name.encode(), value=value, headers=headers))


async def submitted(reader: TopicReader, count: int) -> list[bytes | None]:
    keys: list[bytes | None] = []
    async with asyncio.timeout(20):
        while len(keys) < count:
            keys += [one.key for one in await reader.some(timeout_ms=200)]
    return keys


async def write_delta(producer: Producer, settings: Settings, piece: Delta) -> None:
    key = piece.request_id.encode()
    await producer.send(Outgoing(topic=settings.topics.deltas, key=key, value=CODEC.encode(piece), headers=[]))
