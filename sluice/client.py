"""The Python client: submit requests, and read their results from Kafka with repeats removed.

async with Client(Settings()) as client:
    result = await client.call(LLMRequest(request_id="essay-7", messages=[...]))
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any

from connectors.kafka.client import client_options
from connectors.kafka.producer import Outgoing, Producer
from connectors.kafka.reader import TopicReader
from connectors.schema_registry import open_codec
from connectors.settings import Settings
from connectors.tracing import outgoing
from schemas import LLMRequest, LLMResult
from schemas.codec import Codec
from schemas.envelope import cloud_event, header

REMEMBERED_IDS = 100_000
"""Ids of results seen, to drop repeats: bounds memory to some 20 MB."""


class Client:
    """One producer and, from the first `results` or `wait` on, one reader. Safe for many tasks at once."""

    def __init__(self, settings: Settings, *, source: str = "/sluice/client") -> None:
        self._settings = settings
        self._source = source
        self._options = client_options(settings)
        self._producer = Producer(self._options, max_in_flight=settings.kafka.max_sends_in_flight)
        self._codec_context = open_codec(settings)
        self._codec: Codec | None = None
        self._reader: TopicReader | None = None
        self._reading: asyncio.Task[None] | None = None
        self._waiting: dict[str, asyncio.Future[LLMResult]] = {}

    async def __aenter__(self) -> "Client":
        self._codec = await self._codec_context.__aenter__()
        try:
            await self._producer.start()
        except BaseException:
            await self._codec_context.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        if self._reader is not None:
            await self._reader.__aexit__(None, None, None)
        await self._producer.close()
        await self._codec_context.__aexit__(None, None, None)

    async def submit(self, request: LLMRequest) -> None:
        """Returns when Kafka has the request. From then on it is not lost."""
        if self._codec is None:
            raise RuntimeError("use the client in an `async with` block")
        record = Outgoing(
            topic=self._settings.topics.requests,
            key=request.request_id.encode(),
            value=self._codec.encode(request),
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
        """Submits a request and waits for its end, whatever it is. Raises TimeoutError."""
        await self.start_reading()
        ended: asyncio.Future[LLMResult] = asyncio.get_running_loop().create_future()
        self._waiting[request.request_id] = ended
        try:
            await self.submit(request)
            async with asyncio.timeout(timeout_seconds):
                return await self._unless_reading_fails(ended)
        finally:
            del self._waiting[request.request_id]

    async def start_reading(self) -> None:
        """Results written from now on reach `call`. Called by it when needed."""
        if self._reading is None:
            self._reader = TopicReader(self._options, [self._settings.topics.results])
            await self._reader.__aenter__()
            self._reading = asyncio.create_task(self._dispatch(self._reader), name="client-results")

    async def _dispatch(self, reader: TopicReader) -> None:
        async for result in unique_results(reader, self._codec_or_fail()):
            ended = self._waiting.get(result.request_id)
            if ended is not None and not ended.done():
                ended.set_result(result)

    async def _unless_reading_fails(self, ended: asyncio.Future[LLMResult]) -> LLMResult:
        if self._reading is None:
            raise RuntimeError("the reader is not started")
        either: list[asyncio.Future[Any]] = [ended, self._reading]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            self._reading.result()
        return await ended

    def _codec_or_fail(self) -> Codec:
        if self._codec is None:
            raise RuntimeError("use the client in an `async with` block")
        return self._codec


async def unique_results(reader: TopicReader, codec: Codec) -> AsyncIterator[LLMResult]:
    """Results as they arrive, each once: a repeat has the `ce_id` of the first."""
    seen: OrderedDict[str, None] = OrderedDict()
    async for record in reader:
        identity = header(record.headers, "ce_id")
        if record.value is None or (identity is not None and identity in seen):
            continue
        if identity is not None:
            seen[identity] = None
            if len(seen) > REMEMBERED_IDS:
                seen.popitem(last=False)
        yield await codec.decode(LLMResult, record.value)
