"""Tokens on their way to `llm.deltas`: the first at once, later ones put together for a moment."""

import asyncio

from connectors.kafka.producer import Producer
from connectors.tracing import outgoing
from schemas.delta import Delta
from schemas.request import LLMRequest
from streams.records import RecordWriter

COALESCE_SECONDS = 0.025
COALESCE_PIECES = 32


class DeltaPublisher:
    """Publishes the text of one attempt. `finish` returns when Kafka has all of it."""

    def __init__(self, producer: Producer, writer: RecordWriter, request: LLMRequest, *, attempt: int) -> None:
        self._producer = producer
        self._writer = writer
        self._request = request
        self._attempt = attempt
        self._trace = outgoing()
        self._seq = 0
        self._pieces: list[str] = []
        self._pending: asyncio.Task[None] | None = None
        self._sent: set[asyncio.Task[object]] = set()

    async def add(self, text: str) -> None:
        self._pieces.append(text)
        if self._seq == 0 or len(self._pieces) >= COALESCE_PIECES:
            self._flush()
        elif self._pending is None:
            self._pending = asyncio.create_task(self._flush_soon())

    async def finish(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None
        self._flush()
        if self._sent:
            await asyncio.gather(*self._sent)

    async def _flush_soon(self) -> None:
        await asyncio.sleep(COALESCE_SECONDS)
        self._pending = None
        self._flush()

    def _flush(self) -> None:
        if not self._pieces:
            return
        delta = Delta(
            request_id=self._request.request_id,
            tenant_id=self._request.tenant_id,
            attempt=self._attempt,
            seq=self._seq,
            text="".join(self._pieces),
            supersedes_attempt=self._attempt - 1 if self._seq == 0 and self._attempt > 1 else None,
        )
        self._pieces.clear()
        self._seq += 1
        sending: asyncio.Task[object] = asyncio.create_task(self._producer.send(self._writer.delta(delta, self._trace)))
        self._sent.add(sending)
        sending.add_done_callback(self._sent.discard)
