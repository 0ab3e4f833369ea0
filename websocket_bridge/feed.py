"""Reads what the live view shows from Kafka, all partitions and no group, and hands it to the hub.

It starts some minutes back, so that a bridge just started knows what is going on. It goes on reading where it was
after any trouble, and tells the hub, and so every client, when its view of Kafka is not what it should be.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from schemas.codec import Codec, CodecError
from schemas.dead_letter import DeadLetterMark
from schemas.dead_letter_headers import read_dead_letter
from schemas.delta import Delta
from schemas.lane_report import LaneReport
from schemas.result import LLMResult
from schemas.status import StatusEvent
from schemas.topics import Topics
from websocket_bridge.hub import Hub
from websocket_bridge.lane_history import REMEMBERED_SECONDS
from websocket_bridge.messages import DeadLetterEntry, FeedState
from websocket_bridge.metrics import BridgeMetrics
from websocket_bridge.position import Place, epoch_of
from websocket_bridge.progress import Progress
from websocket_bridge.read_back import BackReader
from websocket_bridge.recent import Spot

DELTA_REPLAY_SECONDS = 60
LANE_REPLAY_SECONDS = REMEMBERED_SECONDS
DEAD_LETTER_REPLAY_SECONDS = 24 * 3600
DEAD_LETTERS_PER_PARTITION = 100
"""No more than so many are read back: each comes with its value, of up to 4 MiB."""
MARK_REPLAY_SECONDS = DEAD_LETTER_REPLAY_SECONDS + 3600
"""A mark comes after its letter, by clocks that may differ by so much."""
MARKS_PER_PARTITION = 10_000
WATCH_INTERVAL_SECONDS = 2
WATCH_TIMEOUT_SECONDS = 5
BEHIND_SECONDS = 5
"""Above this lag clients are told that the bridge is catching up."""
RECORDS_PER_POLL = 500
RECORDS_PER_FLUSH = 50
METADATA_MAX_AGE_MS = 30_000
"""So long until partitions that were added are noticed."""
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.5, 10.0
UNDECODABLE_PER_LOG_LINE = 100

log = structlog.get_logger(__name__)


class MissingTopicsError(Exception):
    """Topics that the bridge reads do not exist (yet)."""

    def __init__(self, topics: list[str]) -> None:
        super().__init__(f"no such topic: {', '.join(topics)} (sluice topics create)")
        self.topics = topics


class LogBeganAnewError(Exception):
    """A partition gave a record from before what was read of it: its topic was made anew, or Kafka is another one."""

    def __init__(self, part: TopicPartition, offset: int, position: int) -> None:
        super().__init__(f"{part.topic}-{part.partition} is at {offset} again, after {position}")


class Feed:
    """`run` until cancelled. `has_caught_up`: since the start, the bridge once showed all that Kafka had."""

    def __init__(
        self,
        *,
        hub: Hub,
        metrics: BridgeMetrics,
        topics: Topics,
        codec: Codec,
        client_options: Mapping[str, Any],
        replay_seconds: float,
        now_seconds: Callable[[], float] = time.time,
    ) -> None:
        self._hub = hub
        self._metrics = metrics
        self._codec = codec
        self._client_options = dict(client_options)
        self._now_seconds = now_seconds
        self._topics = topics
        self._replayed = (topics.status, topics.deltas, topics.results)
        """Numbered in tokens as in `resuming`."""
        self._replay_seconds = {
            topics.status: replay_seconds,
            topics.deltas: min(replay_seconds, DELTA_REPLAY_SECONDS),
            topics.results: replay_seconds,
            topics.lane_reports: min(replay_seconds, LANE_REPLAY_SECONDS),
            topics.dead_letters: DEAD_LETTER_REPLAY_SECONDS,
            topics.dead_letter_marks: MARK_REPLAY_SECONDS,
        }
        self._most_replayed = {
            topics.dead_letters: DEAD_LETTERS_PER_PARTITION,
            topics.dead_letter_marks: MARKS_PER_PARTITION,
        }
        """Records of a partition; of the others as many as there are."""
        self._wanted = asyncio.Event()
        hub.on_waiting = self._wanted.set
        self._progress: Progress[TopicPartition] = Progress({})
        self._kafka_answers = False
        self._undecodable = 0
        self.has_caught_up = False
        metrics.lag_seconds.set_function(lambda: self._progress.lag_seconds(now_seconds=now_seconds()))

    async def run(self) -> None:
        """Reads for ever. Whatever goes wrong is logged, told to the clients, and tried again."""
        failures = 0
        while True:
            try:
                await self._read_until_partitions_change()
                failures = 0
            except Exception as trouble:  # noqa: BLE001 - a feed that ended would leave pages that look alive
                if isinstance(trouble, LogBeganAnewError):
                    self._progress = Progress({})
                    self._hub.forget_log()
                failures = 1 if self._kafka_answers else failures + 1
                self._kafka_answers = False
                self._tell()
                wait_seconds = _backoff_seconds(failures)
                reason = f"{type(trouble).__name__}: {trouble}"
                log.warning("bridge_feed_interrupted", reason=reason, retry_in_seconds=round(wait_seconds, 1))
                await asyncio.sleep(wait_seconds)

    async def _read_until_partitions_change(self) -> None:
        partitions = await self._partitions()
        epoch = await self._epoch()
        async with self._consumer(partitions) as consumer:
            await self._seek(consumer, partitions, epoch)
            watcher = asyncio.create_task(self._watch(consumer, partitions))
            try:
                while not watcher.done():
                    await self._read_batch(consumer)
            finally:
                watcher.cancel()
                await asyncio.wait({watcher})
            watcher.result()

    async def _partitions(self) -> set[TopicPartition]:
        wanted = list(self._replay_seconds)
        admin = AIOKafkaAdminClient(**self._client_options)
        try:
            await admin.start()
            found = {topic["topic"]: topic["partitions"] for topic in await admin.describe_topics(wanted)}
        finally:
            await admin.close()
        missing = [topic for topic in wanted if not found.get(topic)]
        if missing:
            raise MissingTopicsError(missing)
        return {TopicPartition(topic, part["partition"]) for topic in wanted for part in found[topic]}

    async def _epoch(self) -> bytes:
        admin = AIOKafkaAdminClient(**self._client_options)
        try:
            await admin.start()
            cluster = await admin.describe_cluster()
        finally:
            await admin.close()
        return epoch_of(str(cluster.get("cluster_id")), self._replayed)

    @contextlib.asynccontextmanager
    async def _consumer(self, partitions: set[TopicPartition]) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            **self._client_options,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",  # only where an offset is gone: what retention left is the best there is
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
        )
        try:
            await consumer.start()
            consumer.assign(list(partitions))
            yield consumer
        finally:
            await consumer.stop()

    async def _seek(self, consumer: AIOKafkaConsumer, partitions: set[TopicPartition], epoch: bytes) -> None:
        """To where reading was; at the start, to the first record of the replayed time."""
        now_seconds = self._now_seconds()
        # The ends come first: what is written between the two look-ups is then found by its time.
        ends = await consumer.end_offsets(list(partitions))
        since = {part: int((now_seconds - self._replay_seconds[part.topic]) * 1000) for part in partitions}
        by_time = await consumer.offsets_for_times(since)
        starts = {part: found.offset if (found := by_time[part]) else ends[part] for part in partitions}
        for part in partitions:
            if part.topic in self._most_replayed:
                starts[part] = max(starts[part], ends[part] - self._most_replayed[part.topic])
        positions = starts | {part: at for part, at in self._progress.positions.items() if part in partitions}
        for part, begin in (await consumer.beginning_offsets(list(partitions))).items():
            if begin > positions[part]:  # retention has overtaken us: what is between is lost for the live view
                positions[part] = begin
                if part.topic in self._replayed:
                    self._hub.memory.recent.skip_to(self._place(part), begin)
        for part, offset in positions.items():
            consumer.seek(part, offset)
        self._progress = Progress(positions)
        self._progress.aim(ends, now_seconds=now_seconds)
        self._kafka_answers = True
        self._hub.begin(epoch, self._places(positions))
        self._tell()
        log.info("bridge_feed_reads", partitions=len(partitions), records=sum(ends.values()) - sum(positions.values()))

    async def _read_batch(self, consumer: AIOKafkaConsumer) -> None:
        batches = await consumer.getmany(timeout_ms=500, max_records=RECORDS_PER_POLL)
        for part, records in batches.items():
            position = self._progress.positions[part]
            if records[0].offset < position:
                raise LogBeganAnewError(part, records[0].offset, position)
            for number, record in enumerate(records, 1):
                await self._take(record)
                if number % RECORDS_PER_FLUSH == 0:
                    self._hub.flush()
            self._hub.flush()
            self._progress.advance(part, records[-1].offset + 1)
        self._tell()
        await asyncio.sleep(0)  # the codec may never yield, and readers have to get their turn between batches

    async def _take(self, record: ConsumerRecord) -> None:
        spot = None
        if record.topic in self._replayed:
            spot = Spot(self._place(TopicPartition(record.topic, record.partition)), record.offset)
        try:
            is_fresh = await self._show(record, spot)
        except CodecError as error:
            self._metrics.events.labels(record.topic, "undecodable").inc()
            if self._undecodable % UNDECODABLE_PER_LOG_LINE == 0:
                where = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
                log.warning("bridge_skips_undecodable_record", **where, reason=error.reason, field=error.field)
            self._undecodable += 1
            return
        self._metrics.events.labels(record.topic, "fresh" if is_fresh else "stale").inc()

    async def _show(self, record: ConsumerRecord, spot: Spot | None) -> bool:
        """Raises `CodecError`."""
        value: bytes = record.value or b""
        topics, hub = self._topics, self._hub
        if record.topic == topics.status:
            return hub.on_status(await self._codec.decode(StatusEvent, value), spot)
        if record.topic == topics.deltas:
            return hub.on_delta(await self._codec.decode(Delta, value), spot)
        if record.topic == topics.results:
            return hub.on_result(await self._codec.decode(LLMResult, value), spot)
        if record.topic == topics.lane_reports:
            # Live ones are as old as nothing, whatever a worker's clock says.
            age_seconds = 0.0 if self.has_caught_up else max(0.0, self._now_seconds() - record.timestamp / 1000)
            return hub.on_lane_report(await self._codec.decode(LaneReport, value), age_seconds=age_seconds)
        if record.topic == topics.dead_letter_marks:
            return hub.on_dead_letter_mark(await self._codec.decode(DeadLetterMark, value))
        headers = [(name, content or b"") for name, content in record.headers]
        letter = read_dead_letter(headers, size_bytes=len(value))
        at = _time_of(record)
        hub.on_dead_letter(DeadLetterEntry(partition=record.partition, offset=record.offset, at=at, letter=letter))
        return True

    async def _watch(self, consumer: AIOKafkaConsumer, partitions: set[TopicPartition]) -> None:
        """Asks now and then how far Kafka is: `getmany` says nothing of a broker that is away. Ends when
        partitions were added."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), WATCH_INTERVAL_SECONDS)
            self._wanted.clear()
            asked_at_seconds, asked_at = self._now_seconds(), time.monotonic()
            try:
                async with asyncio.timeout(WATCH_TIMEOUT_SECONDS):
                    ends = await consumer.end_offsets(list(partitions))
                    for part in self._progress.missing:  # moves where retention or control records left a gap
                        self._progress.advance(part, await consumer.position(part))
            except (KafkaError, OSError) as error:
                if self._kafka_answers:
                    log.warning("bridge_lost_kafka", reason=f"{type(error).__name__}: {error}")
                self._kafka_answers = False
            else:
                if not self._kafka_answers:
                    log.info("bridge_regained_kafka")
                self._kafka_answers = True
                self._progress.aim(ends, now_seconds=asked_at_seconds)
                self._hub.on_ends(self._places(ends), looked_up_at=asked_at)
                await self._read_back()
            self._tell()
            known = {topic: consumer.partitions_for_topic(topic) or set() for topic in self._replay_seconds}
            if any(TopicPartition(topic, number) not in partitions for topic in known for number in known[topic]):
                log.info("bridge_feed_partitions_added")
                return

    async def _read_back(self) -> None:
        """For clients that come back after longer than the log reaches: one reader for all of them."""
        wanted = self._hub.wanted_back()
        if wanted:
            reader = BackReader(self._hub, self._codec, self._client_options, self._replayed)
            await reader.read(wanted)

    def _place(self, part: TopicPartition) -> Place:
        return self._replayed.index(part.topic), part.partition

    def _places(self, offsets: Mapping[TopicPartition, int]) -> dict[Place, int]:
        return {self._place(part): offset for part, offset in offsets.items() if part.topic in self._replayed}

    def _tell(self) -> None:
        self.has_caught_up = self.has_caught_up or (self._kafka_answers and self._progress.is_caught_up)
        self._hub.on_feed(self._state())

    def _state(self) -> FeedState:
        if not self._kafka_answers:
            return FeedState.AWAY
        is_behind = self._progress.lag_seconds(now_seconds=self._now_seconds()) > BEHIND_SECONDS
        return FeedState.CATCHING_UP if is_behind or not self.has_caught_up else FeedState.LIVE


def _time_of(record: ConsumerRecord) -> datetime:
    """When it was written; 1970 where the number that a producer gave is no time."""
    try:
        return datetime.fromtimestamp(record.timestamp / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(0, UTC)


def _backoff_seconds(failures: int) -> float:
    longest = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** (failures - 1))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, so that bridges do not come back in step
