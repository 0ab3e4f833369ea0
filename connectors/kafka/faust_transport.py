"""Faust's Kafka transport with a consumer that commits only what is done. Works for agents that read with `noack`.

What is replaced, and why (paths in faust-streaming 0.15.3):

- what may be committed: `transport/consumer.py` `_new_offset` skips offsets in flight (their issue 606);
- a commit before the bookkeeping is dropped on revoke; there it is dropped first, and done work is repeated;
- the thread of the consumer: see `InLoopConsumer`;
- a failed commit: there it moves the committed offset all the same, or crashes the worker;
- connection options: one dict for all Kafka clients of the process, in place of Faust's own credentials;
- the producer: all sending goes through `connectors.kafka.producer`, so Faust's never connects.
"""

from collections.abc import AsyncIterator, Callable, Mapping
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

log = structlog.get_logger(__name__)

FETCH_MAX_WAIT_MS = 100
"""Faust hard-codes 1,500, which delays the first records after each rebalance."""


COORDINATOR_CHECK_SECONDS = 1.0


class SafeConsumer(driver.Consumer):
    """Commits the first offset in flight, or the next one when none is."""

    transport: "SafeTransport"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.ledger: OffsetLedger[TP] = OffsetLedger()
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
            yield tp, message

    def ack(self, message: Message) -> bool:
        message.acked = True
        self._unacked_messages.discard(message)
        return self.ledger.acknowledged(message.tp, message.offset, message)

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:  # noqa: ARG002
        return await self._commit_ledger(self.ledger.committable())

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await self._commit_ledger(self.ledger.committable(revoked))
        self.ledger.forget(revoked)
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self.ledger.forget(assigned)
        await super().on_partitions_assigned(assigned, generation_id)
        self.has_joined = True

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

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        assigned = self.assignment()
        wanted = {
            TopicPartition(tp.topic, tp.partition): OffsetAndMetadata(offset, "")
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
    """Give it to a Faust application: `app.transport = app.producer_transport = SafeTransport(app, options)`."""

    Consumer = SafeConsumer
    Producer = IdleProducer

    def __init__(self, app: AppT, client_options: Mapping[str, Any]) -> None:
        super().__init__(app.conf.broker_consumer, app)
        self.client_options = dict(client_options)


def is_member(app: AppT) -> bool:
    """Whether the application has joined its group, and no rebalance is under way."""
    return app.started and not app.rebalancing and cast("SafeConsumer", app.consumer).has_joined
