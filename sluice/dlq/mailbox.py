"""The dead letters of a deployment in Kafka: read with their marks, and marked."""

import asyncio
import getpass
import socket
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import KafkaTimeoutError

from connectors.kafka.access import check_access
from connectors.kafka.client import client_options
from connectors.kafka.producer import Outgoing, Producer
from connectors.kafka.reader import TopicReader
from connectors.schema_registry import open_codec
from connectors.settings import Settings
from schemas.codec import Codec, CodecError
from schemas.dead_letter import DeadLetterMark
from schemas.vocabulary import DeadLetterAction
from sluice.dlq.letters import Position, Repeats, StoredLetter
from sluice.dlq.marks import Handled, Marks, mark_of, mark_record

PATIENCE_SECONDS = 30.0
"""So long nothing may come from Kafka, or a record may take to get there."""
REPEAT_SLACK = timedelta(hours=1)
"""So much earlier reading begins: a repeat is known by the letter before it."""

Ends = Mapping[TopicPartition, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A letter, its record, and what is known of it. `first`: this one is a repeat of that one."""

    stored: StoredLetter
    record: ConsumerRecord
    handled: Handled | None
    first: Position | None


class Mailbox:
    """An async context manager. Raises `KafkaAccessError` and `KafkaError` throughout.

    `writes`: it marks letters and sends records. Marks that others write meanwhile are known after `listen`.
    """

    def __init__(self, settings: Settings, *, writes: bool) -> None:
        self._settings = settings
        self._options = client_options(settings)
        self._writes = writes
        self._by = _operator()
        self._context = AsyncExitStack()
        self.topics = settings.topics
        self.marks = Marks()
        self.codec: Codec
        self._mark_reader: TopicReader
        self._producer: Producer

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as context:
            await check_access(self._settings)
            specs = [spec for spec in self.topics.specs([]) if spec.record is DeadLetterMark] if self._writes else []
            self.codec = await context.enter_async_context(open_codec(self._settings, specs))
            self._mark_reader = await context.enter_async_context(self._reader(self.topics.dead_letter_marks))
            if self._writes:
                self._producer = await context.enter_async_context(Producer(self._options))
            async for batch in self._up_to(self._mark_reader, await self._mark_reader.ends()):
                await self._learn(batch)
            self._context = context.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._context.aclose()

    async def ends(self) -> Ends:
        """How far the letters go now."""
        async with self._reader(self.topics.dead_letters) as reader:
            return await reader.ends()

    async def ends_before(self, moment: datetime) -> Ends:
        """Of each partition the first letter of this time or later."""
        async with self._reader(self.topics.dead_letters) as reader:
            return await reader.offsets_at(moment)

    async def read(self, *, since: datetime | None = None, ends: Ends | None = None) -> AsyncIterator[Found]:
        """Every letter from some time before `since`, up to `ends` or to the end as it is now.

        One batch of records is in memory at a time. Each partition in its order.
        """
        repeats = Repeats()
        async with self._reader(self.topics.dead_letters, since=since) as reader:
            async for batch in self._up_to(reader, ends if ends is not None else await reader.ends()):
                for record in batch:
                    stored = StoredLetter.of(record)
                    first = repeats.first_of(stored)
                    yield Found(stored=stored, record=record, handled=self.marks.of(stored), first=first)

    async def whole_marks(self, positions: Collection[Position]) -> dict[Position, DeadLetterMark]:
        """The newest mark of each of these letters, with who did it."""
        found: dict[Position, DeadLetterMark] = {}
        async with self._reader(self.topics.dead_letter_marks) as reader:
            async for batch in self._up_to(reader, await reader.ends()):
                for record in batch:
                    mark = await self._mark(record)
                    if mark is not None and (position := Position(mark.partition, mark.offset)) in positions:
                        found[position] = mark
        return found

    async def listen(self) -> None:
        """Learns which marks were written since."""
        await self._learn(await self._mark_reader.some(timeout_ms=0))

    async def send(self, record: Outgoing) -> None:
        """Returns when Kafka has it. Raises `MessageSizeTooLargeError`."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._producer.send(record)
        except TimeoutError:
            await check_access(self._settings)  # says why, where Kafka is away
            raise KafkaTimeoutError(f"{record.topic} took no record within {PATIENCE_SECONDS:g} s") from None

    async def mark(self, stored: StoredLetter, action: DeadLetterAction) -> None:
        """Returns when Kafka has it."""
        mark = mark_of(stored, action, by=self._by, now=datetime.now(UTC))
        await self.send(mark_record(mark, topic=self.topics.dead_letter_marks, codec=self.codec))
        self.marks.add(mark)

    async def delete_before(self, ends: Ends) -> None:
        """Deletes the records themselves, for good."""
        admin = AIOKafkaAdminClient(**self._options)
        await admin.start()
        try:
            await admin.delete_records({partition: RecordsToDelete(end) for partition, end in ends.items()})
        finally:
            await admin.close()

    def _reader(self, topic: str, *, since: datetime | None = None) -> TopicReader:
        start = since - REPEAT_SLACK if since is not None and since.timestamp() > REPEAT_SLACK.total_seconds() else None
        return TopicReader(self._options, [topic], start=start or "beginning")

    async def _up_to(self, reader: TopicReader, ends: Ends) -> AsyncIterator[list[ConsumerRecord]]:
        """`TopicReader.up_to`, which by itself waits for ever where Kafka is away."""
        batches = reader.up_to(ends)
        heard_at = asyncio.get_running_loop().time()
        while True:
            try:
                async with asyncio.timeout_at(heard_at + PATIENCE_SECONDS):
                    batch = await anext(batches, None)
            except TimeoutError:
                await check_access(self._settings)
                raise KafkaTimeoutError(f"sent nothing for {PATIENCE_SECONDS:g} s") from None
            if batch is None:
                return
            if batch:
                yield batch
                heard_at = asyncio.get_running_loop().time()

    async def _learn(self, records: list[ConsumerRecord]) -> None:
        for record in records:
            mark, position = await self._mark(record), _position(record)
            if mark is not None:
                self.marks.add(mark)
            elif record.value is None and position is not None:
                self.marks.remove(position)

    async def _mark(self, record: ConsumerRecord) -> DeadLetterMark | None:
        try:
            return await self.codec.decode(DeadLetterMark, record.value or b"")
        except CodecError:
            return None


def _position(record: ConsumerRecord) -> Position | None:
    try:
        return Position.parse((record.key or b"").decode(errors="replace"))
    except ValueError:
        return None


def _operator() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a container's user may have no name
        return socket.gethostname()
