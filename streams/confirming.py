"""Reads results back from Kafka, and confirms to the shared state that they are there.

A worker that died between its settle and its publish left an outcome that is not confirmed, and it stays. One that
ended requests while Redis was away is confirmed here as well. After Redis came back empty, a day of results is read
again, so that requests which have ended are known to have ended.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.partitioner import DefaultPartitioner

from connectors.kafka.client import client_options
from connectors.kafka.group_consumer import commit_positions
from connectors.kafka.reader import TopicReader
from connectors.state.base import Ended
from connectors.state.redis_store import DAY_SECONDS
from schemas import LLMResult
from schemas.codec import CodecError
from schemas.envelope import header
from schemas.vocabulary import State
from streams.context import StageContext
from streams.patience import patiently

log = structlog.get_logger(__name__)

MAX_RECORDS_AT_ONCE = 2_000
POLL_MS = 200


class ResultConfirmer:
    """Confirms the results of the partitions that its consumer has."""

    def __init__(self, context: StageContext, consumer: AIOKafkaConsumer) -> None:
        self._context = context
        self._consumer = consumer
        self._partitioner = DefaultPartitioner()

    async def poll(self) -> None:
        """Confirms what has come, if anything has within a moment."""
        batches = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_RECORDS_AT_ONCE)
        if not batches:
            return
        await self._confirm(record for records in batches.values() for record in records)
        await commit_positions(self._consumer, {part: records[-1].offset + 1 for part, records in batches.items()})

    async def caught_up(self) -> frozenset[int]:
        """The partitions of which everything was confirmed that was written before this was called."""
        assigned = self._consumer.assignment()
        if not assigned:
            return frozenset()
        ends = await self._consumer.end_offsets(assigned)
        return frozenset([part.partition for part in assigned if await self._consumer.position(part) >= ends[part]])

    def partition_of(self, request_id: str) -> int:
        """The partition of the results topic that the result of this request goes to."""
        topic = self._context.settings.topics.results
        partitions = sorted(self._consumer.partitions_for_topic(topic) or ())
        return int(self._partitioner(request_id.encode(), partitions, partitions))

    async def restore(self) -> int:
        """Reads the results of as long as the store remembers ends. Returns how many there were."""
        start = self._context.now() - timedelta(seconds=DAY_SECONDS)
        options = client_options(self._context.settings)
        count = 0
        async with TopicReader(options, [self._context.settings.topics.results], start=start) as reader:
            async for records in reader.up_to(await reader.ends()):
                await self._confirm(records)
                count += len(records)
        await patiently("restored", self._context.state.restored)
        return count

    async def _confirm(self, records: Iterable[ConsumerRecord]) -> None:
        newest: dict[str, Ended] = {}
        for record in records:
            ended = await self._read(record)
            if ended is None:
                continue
            known = newest.get(ended.request_id)
            if known is None or ended.version >= known.version:
                newest[ended.request_id] = ended
        ends: Sequence[Ended] = list(newest.values())
        if ends:
            await patiently("confirm", lambda: self._context.state.confirm(ends))

    async def _read(self, record: ConsumerRecord) -> Ended | None:
        state, version = header(record.headers, "ce_state"), header(record.headers, "ce_sequence")
        if record.key is not None and state in set(State) and version is not None and version.isdigit():
            return Ended(record.key.decode(), State(state), int(version))
        try:
            result = await patiently("decode", lambda: self._context.codec.decode(LLMResult, record.value or b""))
        except CodecError as error:
            log.warning("result_undecodable", partition=record.partition, offset=record.offset, error=error.reason)
            return None
        return Ended(result.request_id, result.status, result.state_version)
