"""The Python client: submits requests, and waits for their results, which it reads from Kafka with repeats removed.

async with Client(Settings()) as client:
    result = await client.call(LLMRequest(request_id="essay-7", messages=[...]), timeout_seconds=60)
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Self

import structlog
from aiokafka import ConsumerRecord
from tenacity import retry, retry_if_exception_type, wait_random_exponential

from connectors.kafka.access import check_access
from connectors.kafka.client import client_options
from connectors.kafka.producer import Outgoing, Producer
from connectors.kafka.reader import TopicReader, partitions_of
from connectors.schema_registry import open_codec
from connectors.settings import Settings
from connectors.tracing import outgoing
from schemas import LLMRequest, LLMResult
from schemas.codec import Codec, CodecError, SchemaUnavailableError
from schemas.envelope import cloud_event, header

log = structlog.get_logger(__name__)

REMEMBERED_IDS = 100_000
"""Ids of results seen, to drop repeats: bounds memory to some 20 MB."""
CLOSE_SECONDS = 5.0
"""With Kafka away nobody takes what is still to be sent, and the producer would wait for it without end."""


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


async def unique_results(reader: TopicReader, codec: Codec) -> AsyncIterator[LLMResult]:
    """Results as they arrive, each once: a repeat has the `ce_id` of the first. What is no result is logged."""
    seen: OrderedDict[str, None] = OrderedDict()
    async for record in reader:
        identity = header(record.headers, "ce_id")
        if identity is not None and identity in seen:
            continue
        result = await read_result(codec, record)
        if result is None:
            continue
        if identity is not None:
            seen[identity] = None
            if len(seen) > REMEMBERED_IDS:
                seen.popitem(last=False)
        yield result


@retry(retry=retry_if_exception_type(SchemaUnavailableError), wait=wait_random_exponential(0.1, max=5))
async def read_result(codec: Codec, record: ConsumerRecord) -> LLMResult | None:
    """The result in a record, or None where there is none. Waits while the schema registry is away."""
    if record.value is None:
        return None
    try:
        return await codec.decode(LLMResult, record.value)
    except CodecError as error:
        origin = f"{record.topic}-{record.partition}-{record.offset}"
        log.warning("result_undecodable", origin=origin, error=error.reason, field=error.field)
        return None
