"""The Python client: submits requests, waits for their results, streams their tokens, calls them off.

async with Client(Settings()) as client:
    result = await client.call(LLMRequest(request_id="essay-7", messages=[...]), timeout_seconds=60)

It reads from Kafka, where delivery is at least once; what it gives has the repeats removed.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from typing import Self
from uuid import uuid4

import structlog
from aiokafka.structs import RecordMetadata

from connectors.kafka.access import check_access
from connectors.kafka.client import client_options
from connectors.kafka.producer import Outgoing, Producer
from connectors.kafka.reader import Start, TopicReader, partitions_of
from connectors.schema_registry import open_codec
from connectors.settings import Settings
from connectors.tracing import outgoing
from schemas import LLMRequest, LLMResult
from schemas.codec import Codec
from schemas.command import Command
from schemas.delta import Delta
from schemas.envelope import cloud_event
from sluice.answer_streams import AnswerStreams
from sluice.results import unique_results
from sluice.shared_reader import SharedReader

log = structlog.get_logger(__name__)

CLOSE_SECONDS = 5.0
"""With Kafka away nobody takes what is still to be sent, and the producer would wait for it without end."""


class ClientClosedError(Exception):
    """The client was closed meanwhile. A request that Kafka has goes on without it; of one that was being sent nobody
    knows: sent again under the same id, it is still the same request."""


class Client:
    """One producer; from the first `call` on one reader of results, from the first `stream` on one for all streams.

    An async context manager; safe for many tasks at once.

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
        self._sends: set[asyncio.Future[RecordMetadata]] = set()
        self._streams: AnswerStreams | None = None
        self._calls = SharedReader(
            lambda: TopicReader(self._options, [settings.topics.results]),
            read=self._dispatch,
            fail=self._fail_waiting,
            name="client-results",
        )
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
            self._streams = AnswerStreams(self._options, topics, self._codec)
            connections.push_async_callback(self._streams.close)
            connections.push_async_callback(self._calls.close)
            self._connections = connections.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        closed = ClientClosedError("the client was closed before the result came")
        self._fail_waiting(closed)
        if self._streams is not None:
            self._streams.fail(closed)
        self._codec = self._producer = self._streams = None
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._connections.aclose()
        except TimeoutError:
            log.warning("close_timed_out", seconds=CLOSE_SECONDS)
        for sending in self._sends:
            sending.cancel()  # nobody takes it any more, and it would wait without end

    async def submit(self, request: LLMRequest) -> None:
        """Returns when Kafka has the request. From then on it is not lost.

        Submitted twice, it is the same request still: its `request_id` is called and answered once.
        """
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
        await self._send(record)

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
        Only a request with `stream` has pieces. Raises `TimeoutError`; the request goes on then.

        All streams of a client share one reader, and none waits for another's consumer: above 1,000 pieces that were
        not taken they are joined (the text is whole), above 4 Mi characters `StreamOverrunError` is raised. The reader
        gets the whole of both topics; for browsers there is the bridge.
        """
        if self._streams is None:
            raise RuntimeError("use the client in an `async with` block")
        loop = asyncio.get_running_loop()
        ends_at = None if timeout_seconds is None else loop.time() + timeout_seconds
        async with asyncio.timeout_at(ends_at):
            await self._streams.start()
        with self._streams.inbox(request.request_id) as inbox:
            async with asyncio.timeout_at(ends_at):
                await self.submit(request)
            part: Delta | LLMResult | None = None
            while not isinstance(part, LLMResult):
                async with asyncio.timeout_at(ends_at):
                    part = await inbox.next()
                yield part

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
        await self._send(Outgoing(topic=topic, key=key.encode(), value=value, headers=headers))
        return command

    async def start_reading(self) -> None:
        """Results written from now on reach `call`, which does this itself; done before, its first call is faster."""
        self._opened_codec()
        await self._calls.start()

    async def _send(self, record: Outgoing) -> None:
        if self._producer is None:
            raise RuntimeError("use the client in an `async with` block")
        sending = asyncio.ensure_future(self._producer.send(record))
        self._sends.add(sending)
        try:
            await asyncio.wait([sending])
            if sending.cancelled():
                raise ClientClosedError("the client was closed before Kafka had the record")
            sending.result()
        finally:
            self._sends.discard(sending)
            sending.cancel()

    async def _dispatch(self, reader: TopicReader) -> None:
        async for result in unique_results(reader, self._opened_codec()):
            for ended in self._waiting.get(result.request_id, ()):
                if not ended.done():
                    ended.set_result(result)

    @contextmanager
    def _awaited(self, request_id: str) -> Iterator[asyncio.Future[LLMResult]]:
        ended: asyncio.Future[LLMResult] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(request_id, set()).add(ended)
        try:
            yield ended
        finally:
            if ended.done() and not ended.cancelled():
                ended.exception()  # looked at: whoever waited has an error of its own
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
