"""Answers in pieces, for many streams at once: one reader of deltas and results, which hands each record to its stream.

Nothing that a stream's consumer does, or leaves undone, holds up another one: what it has not taken yet waits in an
inbox of its own, and the inbox is bounded.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaTimeoutError
from tenacity import retry, retry_if_exception_type

from connectors.kafka.reader import TopicReader
from schemas import LLMResult
from schemas.codec import Codec
from schemas.delta import Delta
from schemas.topics import Topics
from sluice.results import read_record, read_result
from sluice.shared_reader import SharedReader

MAX_WAITING_PIECES = 1_000
MAX_WAITING_CHARACTERS = 4 * 1024 * 1024
"""More than a result can hold."""
_POLL_MS = 100


class StreamOverrunError(Exception):
    """An answer grew beyond 4 Mi characters while nobody took it. The request goes on without the stream."""


class Inbox:
    """What was read for one stream and is not taken yet. `next` takes it, in order; the result comes last.

    Above 1,000 pieces what waits is joined: the text is whole, its `seq` is that of its last piece, and pieces of
    attempts that are void are left out.
    """

    def __init__(self) -> None:
        self._pieces: deque[Delta] = deque()
        self._characters = 0
        self._last = (0, -1)
        self._end: LLMResult | Exception | None = None
        self._changed = asyncio.Event()

    async def next(self) -> Delta | LLMResult:
        """The next piece, or the result. Raises what ended the reading."""
        while True:
            if isinstance(self._end, Exception):
                raise self._end
            if self._pieces:
                piece = self._pieces.popleft()
                self._characters -= len(piece.text)
                return piece
            if self._end is not None:
                return self._end
            self._changed.clear()
            await self._changed.wait()

    def put(self, piece: Delta) -> None:
        """Takes a piece, unless it is a repeat or of an attempt before."""
        if self._end is not None or (piece.attempt, piece.seq) <= self._last:
            return
        self._last = (piece.attempt, piece.seq)
        self._pieces.append(piece)
        self._characters += len(piece.text)
        if len(self._pieces) > MAX_WAITING_PIECES or self._characters > MAX_WAITING_CHARACTERS:
            self._join()
        self._changed.set()

    def end(self, outcome: LLMResult | Exception) -> None:
        """The result, or why there will be none. The first one counts."""
        if self._end is None:
            self._end = outcome
            self._changed.set()

    def _join(self) -> None:
        newest = self._pieces[-1]
        same = [piece for piece in self._pieces if piece.attempt == newest.attempt]
        text = "".join(piece.text for piece in same)
        supersedes = next((piece.supersedes_attempt for piece in same if piece.supersedes_attempt is not None), None)
        self._pieces = deque([newest.model_copy(update={"text": text, "supersedes_attempt": supersedes})])
        self._characters = len(text)
        if self._characters > MAX_WAITING_CHARACTERS:
            self.end(StreamOverrunError(f"{newest.request_id}: {len(text)} characters were not taken"))


Results = Mapping[bytes, LLMResult]
"""By the key of their records."""


@dataclass(frozen=True, slots=True)
class _Held:
    """Results that were read, and how far the deltas had got by then: what came before a result is given before it."""

    results: Results
    delta_ends: Mapping[TopicPartition, int]


class AnswerStreams:
    """The streams of one client. The reader runs from the first one on, until `close`."""

    def __init__(self, client_options: Mapping[str, Any], topics: Topics, codec: Codec) -> None:
        self._deltas_topic = topics.deltas
        self._codec = codec
        self._inboxes: dict[bytes, set[Inbox]] = {}
        self._shared = SharedReader(
            lambda: TopicReader(client_options, [topics.deltas, topics.results]),
            read=self._read,
            fail=self.fail,
            name="client-streams",
        )

    async def start(self) -> None:
        """What is written from now on reaches the inboxes."""
        await self._shared.start()

    async def close(self) -> None:
        await self._shared.close()

    @contextmanager
    def inbox(self, request_id: str) -> Iterator[Inbox]:
        """What comes of a request meanwhile. Several may follow the same one."""
        key, inbox = request_id.encode(), Inbox()
        self._inboxes.setdefault(key, set()).add(inbox)
        try:
            yield inbox
        finally:
            others = self._inboxes[key]
            others.discard(inbox)
            if not others:
                del self._inboxes[key]

    def fail(self, error: Exception) -> None:
        """Ends all that are open."""
        for inboxes in self._inboxes.values():
            for inbox in inboxes:
                inbox.end(error)

    async def _read(self, reader: TopicReader) -> None:
        held: deque[_Held] = deque()
        while True:
            results = await self._dispatch(reader)
            if results:
                held.append(_Held(results, await self._delta_ends(reader)))
            while held and await reader.has_reached(held[0].delta_ends):
                for key, result in held.popleft().results.items():
                    for inbox in self._inboxes.get(key, ()):
                        inbox.end(result)

    @retry(retry=retry_if_exception_type(KafkaTimeoutError))
    async def _delta_ends(self, reader: TopicReader) -> dict[TopicPartition, int]:
        """Waits while Kafka is away."""
        return {part: end for part, end in (await reader.ends()).items() if part.topic == self._deltas_topic}

    async def _dispatch(self, reader: TopicReader) -> Results:
        """Hands out the pieces that came. Returns the results, for which it may be too early."""
        results: dict[bytes, LLMResult] = {}
        for record in await reader.some(timeout_ms=_POLL_MS):
            if record.key not in self._inboxes:
                continue
            if record.topic == self._deltas_topic:
                piece = await read_record(self._codec, Delta, record)
                if piece is not None:
                    for inbox in self._inboxes.get(record.key, ()):
                        inbox.put(piece)
            elif (result := await read_result(self._codec, record)) is not None:
                results.setdefault(record.key, result)
        return results
