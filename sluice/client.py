"""The Python client: submits requests, waits for their results, streams their tokens, calls them off.

async with Client(Settings()) as client:
    result = await client.call(LLMRequest(request_id="essay-7", messages=[...]), timeout_seconds=60)

It reads from Kafka, where delivery is at least once; what it gives has the repeats removed.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from typing import Self, TypeVar
from uuid import uuid4

import structlog
from aiokafka import ConsumerRecord
from tenacity import retry, retry_if_exception_type, wait_random_exponential

from connectors.kafka.access import check_access
from connectors.kafka.client import client_options
from connectors.kafka.producer import Outgoing, Producer
from connectors.kafka.reader import Start, TopicReader, partitions_of
from connectors.schema_registry import open_codec
from connectors.settings import Settings
from connectors.tracing import outgoing
from schemas import LLMRequest, LLMResult
from schemas.base import Record
from schemas.codec import Codec, CodecError, SchemaUnavailableError
from schemas.command import Command
from schemas.delta import Delta
from schemas.envelope import cloud_event, header

log = structlog.get_logger(__name__)

R = TypeVar("R", bound=Record)
K = TypeVar("K")
V = TypeVar("V")

REMEMBERED_IDS = 100_000
"""Ids of results seen, to drop repeats: bounds memory to some 20 MB."""
CLOSE_SECONDS = 5.0
"""With Kafka away nobody takes what is still to be sent, and the producer would wait for it without end."""
_STREAM_POLL_MS = 100


class ClientClosedError(Exception):
    """The client was closed while a call waited for its result. The request goes on without it."""


class Client:
    """One producer and, from the first `call` on, one reader. An async context manager; safe for many tasks at once.

    Entering it raises `KafkaAccessError` where Kafka cannot be used, and `UnknownTopicOrPartitionError` where the
    request topic is missing. Afterwards it waits while Kafka is away: give `call` a timeout, and `submit` one around
    it. Who only submits needs no right to read.
    """

    def __init__(self, settings: Settings, *, source: str = "/sluice/client") -> None:
        self._settings = settings
        self._source = source
        self._options = client_options(settings)
        self._connections = AsyncExitStack()
        self._codec: Codec | None = None
        self._producer: Producer | None = None
        self._reader: TopicReader | None = None
        self._reading: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._waiting: dict[str, set[asyncio.Future[LLMResult]]] = {}

    async def __aenter__(self) -> Self:
        settings, topics = self._settings, self._settings.topics
        await check_access(settings)
        await partitions_of(self._options, [topics.requests])
        async with AsyncExitStack() as connections:
            writes = [spec for spec in topics.specs([]) if spec.name == topics.requests]
            self._codec = await connections.enter_async_context(
                open_codec(settings, writes, auto_register=settings.registry.auto_register)
            )
            self._producer = await connections.enter_async_context(
                Producer(
                    self._options,
                    linger_ms=settings.kafka.linger_ms,
                    max_in_flight=settings.kafka.max_sends_in_flight,
                )
            )
            connections.push_async_callback(self._close_reading)
            self._connections = connections.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._codec = self._producer = None
        self._fail_waiting(ClientClosedError("the client was closed before the result came"))
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._connections.aclose()
        except TimeoutError:
            log.warning("close_timed_out", seconds=CLOSE_SECONDS)

    async def submit(self, request: LLMRequest) -> None:
        """Returns when Kafka has the request. From then on it is not lost.

        Submitted twice, it is the same request still: its `request_id` is called and answered once.
        """
        if self._producer is None:
            raise RuntimeError("use the client in an `async with` block")
        record = Outgoing(
            topic=self._settings.topics.requests,
            key=request.request_id.encode(),
            value=self._opened_codec().encode(request),
            headers=cloud_event(
                type="sluice.LLMRequest",
                source=self._source,
                key=request.request_id,
                id=request.request_id,
                correlation_id=request.correlation_id,
                expiry_time=request.deadline_at,
                trace=outgoing(),
            ),
        )
        await self._producer.send(record)

    async def call(self, request: LLMRequest, *, timeout_seconds: float | None = None) -> LLMResult:
        """Submits a request and waits for its end, whatever that is. Raises `TimeoutError`; the request goes on then.

        Calls with the same `request_id` share one result. A request that had ended before has no second result.
        """
        async with asyncio.timeout(timeout_seconds):
            await self.start_reading()
            with self._awaited(request.request_id) as ended:
                await self.submit(request)
                return await ended

    async def stream(
        self, request: LLMRequest, *, timeout_seconds: float | None = None
    ) -> AsyncIterator[Delta | LLMResult]:
        """Submits a request, and gives its answer in pieces as they arrive; the result comes last.

        Pieces grow by `(attempt, seq)`, none twice. One of a later attempt voids all text of the attempts before it.
        Only a request with `stream` has pieces. Raises `TimeoutError`; the request goes on then. Each stream reads both
        topics whole by itself: for many at once, or for a browser, there is the bridge.
        """
        codec, topics = self._opened_codec(), self._settings.topics
        deadline = _Deadline(timeout_seconds)
        async with TopicReader(self._options, [topics.deltas, topics.results]) as reader:
            async with asyncio.timeout(deadline.seconds_left()):
                await self.submit(request)
            order = _StreamOrder(request.request_id, topics.deltas, codec)
            while order.result is None:
                if deadline.seconds_left() == 0:
                    raise TimeoutError
                for record in await reader.some(timeout_ms=_STREAM_POLL_MS):
                    piece = await order.take(record)
                    if piece is not None:
                        yield piece
            # The two topics are read side by side: pieces from before the result may still be on their way.
            for record in await reader.rest():
                piece = await order.take(record)
                if piece is not None:
                    yield piece
            yield order.result

    async def results(self, *, start: Start = "end") -> AsyncIterator[LLMResult]:
        """Results from a point of `llm.results` on, without end: each once, and none older than one given before."""
        async with TopicReader(self._options, [self._settings.topics.results], start=start) as reader:
            async for result in unique_results(reader, self._opened_codec()):
                yield result

    async def cancel(
        self,
        *,
        request_id: str | None = None,
        tenant_id: str | None = None,
        correlation_id: str | None = None,
        reason: str | None = None,
        issued_by: str | None = None,
    ) -> Command:
        """Calls off what was submitted until now, wherever it is; where several are given, all must fit.

        Returns when Kafka has the command. What ends by it gets a result of its own, `cancelled`; what has ended before
        stays as it is. Raises `pydantic.ValidationError` where nothing is named.
        """
        if self._producer is None:
            raise RuntimeError("use the client in an `async with` block")
        command = Command(
            command_id=str(uuid4()),
            request_id=request_id,
            tenant_id=tenant_id,
            correlation_id=correlation_id,
            reason=reason,
            issued_at=datetime.now(UTC),
            issued_by=issued_by,
        )
        settings, topic = self._settings, self._settings.topics.commands
        await partitions_of(self._options, [topic])
        writes = [spec for spec in settings.topics.specs([]) if spec.name == topic]
        key = request_id or correlation_id or tenant_id or ""
        async with open_codec(settings, writes, auto_register=settings.registry.auto_register) as codec:
            value = codec.encode(command)
        headers = cloud_event(
            type="sluice.Command",
            source=self._source,
            key=key,
            id=command.command_id,
            correlation_id=correlation_id,
            trace=outgoing(),
        )
        await self._producer.send(Outgoing(topic=topic, key=key.encode(), value=value, headers=headers))
        return command

    async def start_reading(self) -> None:
        """Results written from now on reach `call`, which does this itself; done before, its first call is faster."""
        async with self._starting:
            if self._reading is not None and not self._reading.done():
                return
            codec = self._opened_codec()
            await self._stop_reading()
            reader = TopicReader(self._options, [self._settings.topics.results])
            self._reader = await reader.__aenter__()
            self._reading = asyncio.create_task(self._dispatch(reader, codec), name="client-results")

    async def _close_reading(self) -> None:
        async with self._starting:
            await self._stop_reading()

    async def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
            self._reading = None
        if self._reader is not None:
            reader, self._reader = self._reader, None
            await reader.__aexit__()

    async def _dispatch(self, reader: TopicReader, codec: Codec) -> None:
        try:
            async for result in unique_results(reader, codec):
                for ended in self._waiting.get(result.request_id, ()):
                    if not ended.done():
                        ended.set_result(result)
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for; the next call reads anew
            self._fail_waiting(error)

    @contextmanager
    def _awaited(self, request_id: str) -> Iterator[asyncio.Future[LLMResult]]:
        ended: asyncio.Future[LLMResult] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(request_id, set()).add(ended)
        try:
            yield ended
        finally:
            others = self._waiting[request_id]
            others.discard(ended)
            if not others:
                del self._waiting[request_id]

    def _fail_waiting(self, error: Exception) -> None:
        for futures in self._waiting.values():
            for ended in futures:
                if not ended.done():
                    ended.set_exception(error)

    def _opened_codec(self) -> Codec:
        if self._codec is None:
            raise RuntimeError("use the client in an `async with` block")
        return self._codec


class _Deadline:
    def __init__(self, seconds: float | None) -> None:
        self._at = None if seconds is None else asyncio.get_running_loop().time() + seconds

    def seconds_left(self) -> float | None:
        """None where there is no end."""
        return None if self._at is None else max(0.0, self._at - asyncio.get_running_loop().time())


class _StreamOrder:
    """Of all records the pieces of one request, in order; and its result."""

    def __init__(self, request_id: str, deltas_topic: str, codec: Codec) -> None:
        self.result: LLMResult | None = None
        self._key = request_id.encode()
        self._deltas_topic = deltas_topic
        self._codec = codec
        self._last = (0, -1)

    async def take(self, record: ConsumerRecord) -> Delta | None:
        """The piece in a record, if it is a new one of this request."""
        if record.key != self._key:
            return None
        if record.topic != self._deltas_topic:
            self.result = self.result or await read_result(self._codec, record)
            return None
        piece = await read_record(self._codec, Delta, record)
        if piece is None or (piece.attempt, piece.seq) <= self._last:
            return None
        self._last = (piece.attempt, piece.seq)
        return piece


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
