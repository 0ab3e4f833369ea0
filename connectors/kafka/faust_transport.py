"""Faust's Kafka transport with a consumer that commits only what is done. Works for agents that read with `noack`.

What is replaced, and why (paths in faust-streaming 0.15.3):

- what may be committed: `transport/consumer.py` `_new_offset` skips offsets in flight (their issue 606);
- a commit before the bookkeeping is dropped on revoke; there it is dropped first, and done work is repeated;
- the thread of the consumer: see `InLoopConsumer`;
- what stops reading: there a full buffer of one topic stops all topics; see `ReadAhead`;
- a rewind: there a partition of which nothing is committed stays where it was read to, and what was dropped is lost;
- a failed commit: there it moves the committed offset all the same, or crashes the worker;
- connection options: one dict for all Kafka clients of the process, in place of Faust's own credentials;
- the producer: all sending goes through `connectors.kafka.producer`, so Faust's never connects.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, cast

import aiokafka
import structlog
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, AppT, Message
from mode import Service
from mode.utils.futures import maybe_async

from connectors.kafka.offsets import OffsetLedger
from connectors.kafka.own_calls import OwnCalls

log = structlog.get_logger(__name__)

FETCH_MAX_WAIT_MS = 100
"""Faust hard-codes 1,500, which delays the first records after each rebalance."""


COORDINATOR_CHECK_SECONDS = 1.0
ENDS_SECONDS = 2.0
"""How long a rebalance waits to be told where its partitions end."""
HELD_POLL_SECONDS = 0.1
"""How long a fetch may last while a topic is held: it does not see that there is room again."""

MAX_UNTAKEN_RECORDS = 400
MAX_UNTAKEN_BYTES = 8 * 1024 * 1024
"""Of a topic, per process, read and not yet taken by its agent. One poll may go over it."""


class ReadAhead:
    """What was read of each topic and not taken yet by its agent. A topic that is full is left out of the next poll.

    Faust stops a partition at four fifths of its agent's buffer, finds the others out one by one, and waits with its
    only drain loop where a poll overflows the buffer: then no topic is read at all. Its own pause loses records.
    """

    def __init__(self, *, max_records: int = MAX_UNTAKEN_RECORDS, max_bytes: int = MAX_UNTAKEN_BYTES) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._untaken: dict[str, dict[Message, int]] = {}
        self._bytes: dict[str, int] = {}
        self.room = asyncio.Event()
        """Set whenever something was taken."""

    def is_full(self, topic: str) -> bool:
        return len(self._untaken.get(topic, ())) >= self._max_records or self._bytes.get(topic, 0) >= self._max_bytes

    def read(self, message: Message) -> None:
        size = len(message.value or b"")
        self._untaken.setdefault(message.topic, {})[message] = size
        self._bytes[message.topic] = self._bytes.get(message.topic, 0) + size

    def taken(self, message: Message) -> None:
        """Says nothing of a message that was forgotten meanwhile."""
        size = self._untaken.get(message.topic, {}).pop(message, None)
        if size is not None:
            self._bytes[message.topic] -= size
            self.room.set()

    def forget(self, topics: Iterable[str]) -> None:
        """Faust has emptied the buffers of these topics, as it does for all when partitions are revoked."""
        for topic in topics:
            self._untaken.pop(topic, None)
            self._bytes.pop(topic, None)
        self.room.set()


class SafeConsumer(driver.Consumer):
    """Commits the first offset in flight, or the next one when none is."""

    transport: "SafeTransport"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.ledger: OffsetLedger[TP] = OffsetLedger()
        self.read_ahead = ReadAhead()
        self.first_new: Mapping[TP, int] = {}
        """Of each partition, the end of it when this process got it. By offsets: clocks may be wrong."""
        self.own_calls: OwnCalls[TP] = OwnCalls()
        self._recording = asyncio.Lock()
        self.has_joined = False
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> "InLoopConsumer":
        return InLoopConsumer(self, loop=self.loop, thread_loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:  # noqa: ASYNC109 - Faust's signature
        async for tp, message in super().getmany(timeout):
            read_offset = self._read_offset[tp]
            # Faust's drain loop drops what it has read already; such a record is in the ledger from before.
            if read_offset is None or message.offset >= read_offset:
                self.ledger.delivered(tp, message.offset, message)
                self.read_ahead.read(message)
            yield tp, message

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109 - see above
        active = active_partitions or set()
        held = {topic for topic in {tp.topic for tp in active} if self.read_ahead.is_full(topic)}
        if not held:
            return await super()._getmany(active_partitions, timeout)
        readable = {tp for tp in active if tp.topic not in held}
        if readable:
            return await super()._getmany(readable, min(timeout, HELD_POLL_SECONDS))
        # Not an empty set: aiokafka takes that for all partitions.
        self.read_ahead.room.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self.read_ahead.room.wait(), timeout)
        return {}

    def backlog(self) -> int:
        """Records that are not done of the partitions that are assigned, as far as the last fetch told.

        Not those that are not committed: commits come seconds later, and a short queue would never seem to move.
        """
        count = 0
        for tp in self.assignment():
            end = self.highwater(tp)
            if end is not None:
                unfinished = self.ledger.unfinished(tp, end)
                count += max(0, end - (self._committed_offset.get(tp) or 0)) if unfinished is None else unfinished
        return count

    def ack(self, message: Message) -> bool:
        message.acked = True
        self._unacked_messages.discard(message)
        return self.ledger.acknowledged(message.tp, message.offset, message)

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:  # noqa: ARG002
        return await self._commit_ledger(self.ledger.committable())

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await self._commit_ledger(self.ledger.committable(revoked))
        self.ledger.forget(revoked)
        self.read_ahead.forget({tp.topic for tp in revoked})
        if self.transport.on_revoked is not None:
            self.transport.on_revoked(revoked)
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self.ledger.forget(assigned)
        self.read_ahead.forget({tp.topic for tp in assigned})
        self.first_new = await self._ends(assigned)
        self.own_calls.assigned(await self._texts(assigned), self.first_new)
        await super().on_partitions_assigned(assigned, generation_id)
        self.has_joined = True

    async def _ends(self, partitions: set[TP]) -> Mapping[TP, int]:
        """Where each partition ends now. Empty where Kafka does not say so in time."""
        try:
            async with asyncio.timeout(ENDS_SECONDS):
                return await self.highwaters(*partitions)
        except (KafkaError, TimeoutError) as error:
            log.warning("ends_not_known", error=repr(error), partitions=len(partitions))
            return {}

    async def _texts(self, partitions: set[TP]) -> Mapping[TP, str | None]:
        """What the last commit of each partition carried. None where Kafka does not say so in time."""
        try:
            async with asyncio.timeout(ENDS_SECONDS):
                return await cast("InLoopConsumer", self._thread).committed_texts(partitions)
        except (KafkaError, TimeoutError) as error:
            log.warning("commits_not_known", error=repr(error), partitions=len(partitions))
            return dict.fromkeys(partitions)

    async def record_own_call(self, tp: TP, offset: int) -> bool:
        """Puts on record that this record may be called, whatever becomes of us. False: it is not there for sure."""
        async with self._recording:
            if self.own_calls.is_on_record(tp, offset):
                return True
            position = self.ledger.position(tp)
            if position is None:
                return False
            bound = self.own_calls.carry(tp, offset)
            if not await self._commit({tp: position}):
                return False
            self.own_calls.recorded(tp, bound)
            return True

    async def forget_own_calls(self, are_known: Callable[[], bool]) -> None:
        """Takes off record what the shared state knows by now, if `are_known` still says so."""
        async with self._recording:
            if not are_known():
                return
            self.own_calls.forget()
            positions = {tp: self.ledger.position(tp) for tp in self.assignment()}
            # Where nothing new comes no commit would follow. One that fails is made good by the next.
            await self._commit({tp: position for tp, position in positions.items() if position is not None})

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Left out: the ledger needs no gaps, and Faust's list of them grows by each transaction marker."""

    async def verify_all_partitions_active(self) -> None:
        """Left out: Faust takes a call of some minutes for a hanging agent, and fills the log with it."""

    async def _commit_ledger(self, offsets: dict[TP, int]) -> bool:
        if not offsets or not await self._commit(offsets):
            return False
        self.ledger.committed(offsets)
        return True


class InLoopConsumer(driver.AIOKafkaConsumerThread):
    """Runs the aiokafka consumer in the application's own event loop, from the process's own client options.

    Faust gives it a thread. Every fetch then crosses threads twice and waits for the interpreter lock: at 200 records a
    second that is 860 us of CPU a record in place of 640, and a p95 from produce to call of 130 to 180 ms in place of
    24 to 48 (both on two shared cores). No stage blocks the loop, which is what the thread is for.
    """

    consumer: SafeConsumer

    async def maybe_start(self) -> bool:
        if self._thread_started.is_set():
            return False
        await self.start()
        return True

    async def start(self) -> None:
        self._thread_started.set()
        await Service.start(self)

    async def stop(self) -> None:
        if not self._stopped.is_set():
            await self.on_thread_stop()
            self.set_shutdown()
            await Service.stop(self)

    def _stopped_set(self) -> None:
        self._stopped.set()

    @Service.task
    async def _watch_coordinator(self) -> None:
        """aiokafka tells what the coordinator refuses to whoever fetches; a worker without partitions never does."""
        async for _ in self.itertimer(COORDINATOR_CHECK_SECONDS, name="coordinator"):
            coordinator = self._ensure_consumer()._coordinator  # noqa: SLF001 - see above
            if coordinator is not None:
                coordinator.check_errors()

    async def call_thread(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await maybe_async(fun(*args, **kwargs))

    def _create_worker_consumer(self, transport: driver.Transport) -> aiokafka.AIOKafkaConsumer:
        conf = self.app.conf
        return aiokafka.AIOKafkaConsumer(
            **cast("SafeTransport", transport).client_options,
            group_id=conf.id,
            partition_assignment_strategy=[RoundRobinPartitionAssignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            max_poll_records=conf.broker_max_poll_records,
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
            max_partition_fetch_bytes=conf.consumer_max_fetch_size,
            fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
        )

    async def committed_texts(self, partitions: Iterable[TP]) -> dict[TP, str | None]:
        """The text of each partition's last commit; '' where there was none. Raises `KafkaError`."""
        asked = {TopicPartition(tp.topic, tp.partition): tp for tp in partitions}
        coordinator = self._ensure_consumer()._coordinator  # noqa: SLF001 - `committed` leaves the text out
        found = await coordinator.fetch_committed_offsets(list(asked))
        return {tp: found[partition].metadata if partition in found else "" for partition, tp in asked.items()}

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """As in Faust, and to the beginning where nothing is committed: aiokafka leaves such a partition where it is.

        During a rebalance Faust drops what it has read, and comes here so that it is read again.
        """
        committed = await super().seek_to_committed()
        nothing_done = [tp for tp, offset in committed.items() if not offset]
        if nothing_done:
            await self._ensure_consumer().seek_to_beginning(*nothing_done)
        return committed

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        assigned = self.assignment()
        wanted = {
            TopicPartition(tp.topic, tp.partition): OffsetAndMetadata(offset, self.consumer.own_calls.text(tp, offset))
            for tp, offset in offsets.items()
            if tp in assigned
        }
        if len(wanted) < len(offsets):
            return False
        try:
            await self._ensure_consumer().commit(wanted)
        except KafkaError as error:
            # Nothing is lost: the same offsets are tried again at the next commit, or delivered again.
            log.warning("commit_failed", error=repr(error), partitions=len(wanted))
            return False
        return True


class IdleProducer(driver.Producer):
    """Stands where Faust wants a producer, and connects to nothing."""

    async def on_start(self) -> None:
        """No connection is opened."""

    async def on_stop(self) -> None:
        """None needs closing."""

    async def flush(self) -> None:
        """Nothing is ever sent through it."""


class SafeTransport(driver.Transport):
    """Give it to a Faust application: `app.transport = app.producer_transport = SafeTransport(app, options)`.

    `on_revoked` is called with the partitions that are given up, after what is done of them was committed, and before
    they can be delivered again. Faust's rebalances are eager: they are all that this process has.
    """

    Consumer = SafeConsumer
    Producer = IdleProducer

    def __init__(
        self, app: AppT, client_options: Mapping[str, Any], *, on_revoked: Callable[[set[TP]], None] | None = None
    ) -> None:
        super().__init__(app.conf.broker_consumer, app)
        self.client_options = dict(client_options)
        self.on_revoked = on_revoked


def taken(app: AppT, message: Message) -> None:
    """To be called by an agent that is done with handing a record on, so that more of its topic is read."""
    cast("SafeConsumer", app.consumer).read_ahead.taken(message)


def is_surely_new(app: AppT, message: Message) -> bool:
    """Whether the record was written after this process got its partition, so that nobody else has had it."""
    first_new = cast("SafeConsumer", app.consumer).first_new.get(message.tp)
    return first_new is not None and message.offset >= first_new


def may_have_been_called(app: AppT, message: Message) -> bool:
    """Whether a worker before us may have called for the record while the shared state was away."""
    return cast("SafeConsumer", app.consumer).own_calls.may_have_been_called(message.tp, message.offset)


async def record_own_call(app: AppT, topic: str, partition: int, offset: int) -> bool:
    """Before a call that the shared state does not know of: puts on record that there may have been one.

    False where Kafka did not take it, or the partition is somebody else's by now: no call must be made.
    """
    return await cast("SafeConsumer", app.consumer).record_own_call(TP(topic, partition), offset)


async def forget_own_calls(app: AppT, are_known: Callable[[], bool]) -> None:
    """The shared state knows of all calls of this process: they need be on record in Kafka no longer."""
    await cast("SafeConsumer", app.consumer).forget_own_calls(are_known)


def backlog(app: AppT) -> int:
    """Records of this process's partitions that are not committed, as far as the last fetch told."""
    return cast("SafeConsumer", app.consumer).backlog() if app.started else 0


def is_member(app: AppT) -> bool:
    """Whether the application has joined its group, and no rebalance is under way."""
    return app.started and not app.rebalancing and cast("SafeConsumer", app.consumer).has_joined
