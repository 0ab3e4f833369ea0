"""Reads results back from Kafka, and confirms to the shared state that they are there.

A worker that died between its settle and its publish left an outcome that is not confirmed, and it stays. One that
died after the result, and before the rest of the end, left a task that is not committed: the place of the result, which
is noted here, tells whoever gets it what to publish. What ended while Redis was away is confirmed here as well.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from connectors.kafka.group_consumer import commit_positions
from connectors.kafka.groups import to_be_read
from connectors.kafka.reader import partition_of
from connectors.state.base import Ended, Place
from schemas import LLMResult
from schemas.codec import CodecError
from schemas.envelope import header, header_number
from schemas.vocabulary import State
from streams.context import StageContext
from streams.patience import patiently

log = structlog.get_logger(__name__)

MAX_RECORDS_AT_ONCE = 2_000
POLL_MS = 200
MAX_POLLS = 20
"""To reach an end that was seen: one poll more than a moment's records need is too many."""


class ResultConfirmer:
    """Confirms the results of the partitions that its consumer has."""

    def __init__(self, context: StageContext, consumer: AIOKafkaConsumer) -> None:
        self._context = context
        self._consumer = consumer

    async def poll(self) -> None:
        """Confirms what has come, if anything has within a moment."""
        batches = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_RECORDS_AT_ONCE)
        if not batches:
            return
        await self.confirm(record for records in batches.values() for record in records)
        await commit_positions(self._consumer, {part: records[-1].offset + 1 for part, records in batches.items()})

    async def caught_up(self) -> frozenset[int]:
        """The partitions of which everything was confirmed that was written before this was called."""
        assigned = self._consumer.assignment()
        if not assigned:
            return frozenset()
        ends = await self._consumer.end_offsets(assigned)
        reached = await self._reached(ends)
        for _ in range(MAX_POLLS):
            if len(reached) == len(ends):
                break
            # Under load there is always something new by the time that the end is known.
            await self.poll()
            reached = await self._reached(ends)
        return reached

    async def _reached(self, ends: Mapping[TopicPartition, int]) -> frozenset[int]:
        owned = self._consumer.assignment() & ends.keys()
        return frozenset([part.partition for part in owned if await self._consumer.position(part) >= ends[part]])

    async def all_confirmed(self) -> None:
        """Returns once everything is confirmed that stands in Kafka now, by whichever process reads it."""
        topic = self._context.settings.topics.results
        partitions = [TopicPartition(topic, number) for number in self._consumer.partitions_for_topic(topic) or ()]
        ends = await self._consumer.end_offsets(partitions)
        while await self._unconfirmed(ends):  # noqa: ASYNC110 - Kafka tells nobody of a commit
            await asyncio.sleep(POLL_MS / 1000)

    async def _unconfirmed(self, ends: Mapping[TopicPartition, int]) -> bool:
        wanted = to_be_read(await self._consumer.beginning_offsets(list(ends)), ends)
        return any([(await self._consumer.committed(part) or 0) < end for part, end in wanted.items()])

    def partition_of(self, request_id: str) -> int:
        """The partition of the results topic that the result of this request goes to."""
        topic = self._context.settings.topics.results
        return partition_of(request_id, self._consumer.partitions_for_topic(topic) or ())

    async def confirm(self, records: Iterable[ConsumerRecord]) -> None:
        """Notes the ends that these records tell of."""
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
        place = Place(record.partition, record.offset)
        state, version = header(record.headers, "ce_state"), header_number(record.headers, "ce_sequence")
        if record.key is not None and state in set(State) and version is not None:
            return Ended(record.key.decode(errors="replace"), State(state), version, place)
        try:
            result = await patiently("decode", lambda: self._context.codec.decode(LLMResult, record.value or b""))
        except CodecError as error:
            log.warning("result_undecodable", partition=record.partition, offset=record.offset, error=error.reason)
            return None
        return Ended(result.request_id, result.status, result.state_version, place)
