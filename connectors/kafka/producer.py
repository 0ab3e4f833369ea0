"""The one producer of a process: idempotent, acknowledged by all replicas, with bounded sends in flight."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidProducerEpoch,
    KafkaError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    UnknownProducerId,
)
from aiokafka.structs import RecordMetadata
from tenacity import AsyncRetrying, retry_if_exception, wait_random_exponential

from schemas.envelope import Headers
from schemas.topics import MIB

log = structlog.get_logger(__name__)

MAX_BATCH_BYTES = 65_536
MAX_REQUEST_BYTES = 8 * MIB
MAX_ERROR_CHARACTERS = 300
STOP_SECONDS = 10.0
_SEQUENCE_LOST = (
    OutOfOrderSequenceNumber,
    UnknownProducerId,
    InvalidProducerEpoch,
    ProducerFenced,
    # The batch that was refused has used up its sequence numbers: the partition takes no more from this producer.
    MessageSizeTooLargeError,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outgoing:
    """One record to be written."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Producer:
    """Writes records and returns when Kafka has them.

    At most `max_in_flight` sends wait at once (aiokafka's throughput collapses when thousands do: each waiter wakes
    for each batch). While Kafka is away a send waits and tries again, without end: the caller has acknowledged
    nothing, so nothing is lost, and its own bounded concurrency stops it from reading on. Records may be written
    twice then; their `ce_id` tells repeats apart.
    """

    def __init__(self, client_options: Mapping[str, Any], *, linger_ms: int = 0, max_in_flight: int = 256) -> None:
        self._options = dict(client_options)
        self._linger_ms = linger_ms
        self._slots = asyncio.Semaphore(max_in_flight)
        self._renewal = asyncio.Lock()
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        self._producer = await self._connect()

    async def close(self) -> None:
        if self._producer is not None:
            await _stop(self._producer)
        self._producer = None

    async def __aenter__(self) -> "Producer":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def send(self, record: Outgoing) -> RecordMetadata:
        """Writes one record. Raises `MessageSizeTooLargeError`, the one failure that waiting does not cure."""
        async with self._slots:
            try:
                return await self._send_once(record)
            except KafkaError as error:
                if not _may_pass(error):
                    raise
            async for attempt in AsyncRetrying(
                retry=retry_if_exception(_may_pass), wait=wait_random_exponential(0.1, max=5), reraise=True
            ):
                with attempt:
                    return await self._send_once(record)
        raise AssertionError("unreachable: the loop above returns or raises")

    async def send_all(self, records: Sequence[Outgoing]) -> None:
        """Writes several records at once; no order among them is promised."""
        if len(records) == 1:
            await self.send(records[0])
        else:
            await asyncio.gather(*(self.send(record) for record in records))

    async def _send_once(self, record: Outgoing) -> RecordMetadata:
        producer = self._producer
        if producer is None:
            raise RuntimeError("the producer is not started")
        try:
            return await producer.send_and_wait(
                record.topic, record.value, key=record.key, headers=list(record.headers)
            )
        except KafkaError as error:
            log.warning("send_failed", topic=record.topic, error=repr(error)[:MAX_ERROR_CHARACTERS])
            if isinstance(error, _SEQUENCE_LOST) or _has_died(producer):
                await self._renew(producer)
            raise

    async def _renew(self, broken: AIOKafkaProducer) -> None:
        """An idempotent producer that lost its sequence fails for good; a new one takes its place."""
        async with self._renewal:
            replaced_already = broken is not self._producer
            if replaced_already:
                return
            log.warning("producer_renewed")
            self._producer = await self._connect()
            await _stop(broken)

    async def _connect(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            **self._options,
            acks="all",
            enable_idempotence=True,
            linger_ms=self._linger_ms,
            max_batch_size=MAX_BATCH_BYTES,
            max_request_size=MAX_REQUEST_BYTES,
        )
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        return producer


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, KafkaError) and not isinstance(error, MessageSizeTooLargeError)


def _has_died(producer: AIOKafkaProducer) -> bool:
    sender = producer._sender.sender_task  # noqa: SLF001 - aiokafka shows the death of its sender nowhere else
    return sender is not None and sender.done()


async def _stop(producer: AIOKafkaProducer) -> None:
    """Stops it within a bound: aiokafka flushes first, and what is idempotent never gives up while Kafka is away."""
    stopping = asyncio.create_task(producer.stop())
    done, _ = await asyncio.wait({stopping}, timeout=STOP_SECONDS)
    if not done:
        log.warning("producer_not_flushed", seconds=STOP_SECONDS)
        stopping.cancel()
    elif stopping.exception() is not None:
        log.debug("producer_stop_failed", error=repr(stopping.exception()))
