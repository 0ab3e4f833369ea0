"""Tokens on their way to `llm.deltas`: the first at once, later ones put together for a moment."""

import asyncio

import structlog

from connectors.kafka.producer import Producer
from connectors.tracing import outgoing
from schemas.delta import Delta
from schemas.request import LLMRequest
from streams.records import RecordWriter

log = structlog.get_logger(__name__)

COALESCE_SECONDS = 0.025
COALESCE_PIECES = 32
MAX_SENDS = 4


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
        """Writes what is left. Tokens that cannot be written are left out: the result holds the whole answer."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None
        self._flush(at_once=True)
        if self._sent:
            outcomes = await asyncio.gather(*self._sent, return_exceptions=True)
            failed = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
            if failed:
                log.warning("deltas_left_out", request_id=self._request.request_id, error=repr(failed[0])[:200])

    async def _flush_soon(self) -> None:
        await asyncio.sleep(COALESCE_SECONDS)
        self._pending = None
        self._flush()

    def _flush(self, *, at_once: bool = False) -> None:
        # With Kafka slow, pieces are put together for longer instead of more and more sends.
        if not self._pieces or (len(self._sent) >= MAX_SENDS and not at_once):
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
