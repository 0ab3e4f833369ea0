"""Bridges that run in the test's own process, on topics of a real Kafka that no other test has."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from bridge_support import until
from prometheus_client import CollectorRegistry

from connectors.settings import BridgeSettings, Settings
from schemas.base import Record
from schemas.codec import SingleObjectCodec
from schemas.topics import Topics
from websocket_bridge.bridge import Bridge

PARTITIONS = 3
KAFKA_WAIT_SECONDS = 40
CODEC = SingleObjectCodec()

by_the_bridge: ContextVar[bool] = ContextVar("by_the_bridge", default=False)
"""Set in the bridge's tasks alone: the test's own producer reaches Kafka while the bridge does not."""


@dataclass
class Deployment:
    """Topics of one test's own, and a producer that writes to them."""

    bootstrap: str
    topics: Topics
    producer: AIOKafkaProducer
    admin: AIOKafkaAdminClient

    async def create_topics(self) -> None:
        await self.admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in self.names])

    async def make_anew(self, topic: str) -> None:
        """Deletes a topic and creates it again, empty."""
        await self.admin.delete_topics([topic])
        async with asyncio.timeout(KAFKA_WAIT_SECONDS):
            while True:
                response = await self.admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
                if not any(code for _, code, *_ in response.topic_errors):
                    return
                await asyncio.sleep(0.1)  # its deletion goes on for a while

    @property
    def names(self) -> list[str]:
        topics = self.topics
        letters = [topics.dead_letters, topics.dead_letter_marks]
        return [topics.status, topics.deltas, topics.results, topics.lane_reports, *letters]

    async def write(self, topic: str, record: Record | bytes, *, at: datetime | None = None) -> None:
        value = record if isinstance(record, bytes) else CODEC.encode(record)
        key = b"broken" if isinstance(record, bytes) else record.model_dump()["request_id"].encode()
        timestamp_ms = int(at.timestamp() * 1000) if at else None
        await self.producer.send_and_wait(topic, value, key=key, timestamp_ms=timestamp_ms)

    def settings(self, **bridge: Any) -> Settings:
        return Settings(
            kafka_bootstrap=self.bootstrap,
            topic_prefix=self.topics.prefix,
            bridge=BridgeSettings(**({"port": 0, "allow_all": True} | bridge)),
        )


@dataclass
class Running:
    """A bridge that runs, and its numbers."""

    bridge: Bridge
    registry: CollectorRegistry

    def events(self, topic: str, outcome: str) -> float:
        labels = {"topic": topic, "outcome": outcome}
        return self.registry.get_sample_value("sluice_bridge_events_total", labels) or 0.0


@asynccontextmanager
async def running(deployment: Deployment, *, wait_until_ready: bool = True, **bridge: Any) -> AsyncIterator[Running]:
    registry, stop, serving = CollectorRegistry(), asyncio.Event(), asyncio.Event()
    role = Bridge(
        deployment.settings(**bridge),
        CODEC,
        client_options={"bootstrap_servers": deployment.bootstrap},
        registry=registry,
    )

    async def run() -> None:
        by_the_bridge.set(True)
        await role.run(stop, on_serving=lambda _: serving.set())

    task = asyncio.create_task(run())
    try:
        await asyncio.wait({task, asyncio.create_task(serving.wait())}, return_when=asyncio.FIRST_COMPLETED)
        if wait_until_ready:
            await until(lambda: role.ready, what="the bridge is ready", seconds=KAFKA_WAIT_SECONDS)
        yield Running(role, registry)
    finally:
        stop.set()
        await asyncio.wait_for(task, KAFKA_WAIT_SECONDS)
