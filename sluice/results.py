"""Records of the pipeline as readers want them: decoded, each result once, what is none passed over."""

from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import TypeVar

import structlog
from aiokafka import ConsumerRecord
from tenacity import retry, retry_if_exception_type, wait_random_exponential

from connectors.kafka.reader import TopicReader
from schemas import LLMResult
from schemas.base import Record
from schemas.codec import Codec, CodecError, SchemaUnavailableError
from schemas.envelope import header

log = structlog.get_logger(__name__)

R = TypeVar("R", bound=Record)
K = TypeVar("K")
V = TypeVar("V")

REMEMBERED_IDS = 100_000
"""Ids of results seen, to drop repeats: bounds memory to some 20 MB."""


async def unique_results(reader: TopicReader, codec: Codec) -> AsyncIterator[LLMResult]:
    """Results as they arrive, each once: a repeat has the `ce_id` of the first. What is no result is logged.

    Of a request that was redriven, none is given that is older than one before it by `state_version`.
    """
    seen: OrderedDict[str, None] = OrderedDict()
    versions: OrderedDict[str, int] = OrderedDict()
    async for record in reader:
        identity = header(record.headers, "ce_id")
        if identity is not None and identity in seen:
            continue
        result = await read_result(codec, record)
        if result is None:
            continue
        if identity is not None:
            if versions.get(result.request_id, 0) >= result.state_version:
                continue
            _remember(seen, identity, None)
            _remember(versions, result.request_id, result.state_version)
        yield result


def _remember(memory: OrderedDict[K, V], key: K, value: V) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > REMEMBERED_IDS:
        memory.popitem(last=False)


async def read_result(codec: Codec, record: ConsumerRecord) -> LLMResult | None:
    """The result in a record, or None where there is none. Waits while the schema registry is away."""
    return await read_record(codec, LLMResult, record)


@retry(retry=retry_if_exception_type(SchemaUnavailableError), wait=wait_random_exponential(0.1, max=5))
async def read_record(codec: Codec, kind: type[R], record: ConsumerRecord) -> R | None:
    """What a record holds, or None where it is no such thing. Waits while the schema registry is away."""
    if record.value is None:
        return None
    try:
        return await codec.decode(kind, record.value)
    except CodecError as error:
        origin = f"{record.topic}-{record.partition}-{record.offset}"
        log.warning("record_undecodable", kind=kind.__name__, origin=origin, error=error.reason, field=error.field)
        return None
