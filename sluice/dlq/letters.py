"""A dead letter as it lies in Kafka, and which letters are meant."""

import re
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import NamedTuple, Self

from aiokafka import ConsumerRecord

from schemas.dead_letter import DeadLetter
from schemas.dead_letter_headers import read_dead_letter
from sluice.dlq.moments import moment_of

MAX_MESSAGE_CHARACTERS = 1_000
"""Of what is kept of a reason: another program may have written it."""
REMEMBERED_LETTERS = 100_000
"""Among so many letters a repeat is known. It comes within minutes of the first one: a worker died in between."""
_POSITION = re.compile(r"([0-9]{1,9})-([0-9]{1,18})")


class Position(NamedTuple):
    """Where a letter lies in its topic. Written as `<partition>-<offset>`."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}-{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError."""
        found = _POSITION.fullmatch(text)
        if found is None:
            raise ValueError(f"{text} is no position: PARTITION-OFFSET, as `sluice dlq list` shows it")
        return cls(int(found[1]), int(found[2]))


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredLetter:
    """A dead letter, where it lies, and since when."""

    letter: DeadLetter
    position: Position
    died_at: datetime

    @classmethod
    def of(cls, record: ConsumerRecord) -> Self:
        letter = read_dead_letter(record.headers, size_bytes=len(record.value or b""))
        if len(letter.message) > MAX_MESSAGE_CHARACTERS:
            letter = letter.model_copy(update={"message": letter.message[:MAX_MESSAGE_CHARACTERS]})
        return cls(
            letter=letter,
            position=Position(record.partition, record.offset),
            died_at=moment_of(record.timestamp),
        )

    @property
    def name(self) -> str:
        """How it is called in a line for people."""
        return f"{self.position} ({self.letter.request_id or 'without a request id'})"


@dataclass(frozen=True, kw_only=True, slots=True)
class LetterFilter:
    """Which letters are meant: each set that is not empty has to hold the letter's value. `until` is left out."""

    request_ids: frozenset[str] = frozenset()
    positions: frozenset[Position] = frozenset()
    categories: frozenset[str] = frozenset()
    providers: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    since: datetime | None = None
    until: datetime | None = None

    def matches(self, stored: StoredLetter) -> bool:
        letter = stored.letter
        conditions = (
            (self.request_ids, letter.request_id),
            (self.positions, stored.position),
            (self.categories, letter.category),
            (self.providers, letter.provider),
            (self.tenants, letter.tenant_id),
            (self.models, letter.model),
        )
        return (
            all(not wanted or value in wanted for wanted, value in conditions)
            and (self.since is None or stored.died_at >= self.since)
            and (self.until is None or stored.died_at < self.until)
        )


class Repeats:
    """Knows the letters that were written twice: a worker that dies before it commits writes its letter again.

    They are of the same life (request and version) of the same record. Two bad records that have the same request id
    are two letters: each may be the only place that has its bytes.
    """

    def __init__(self, remembered: int = REMEMBERED_LETTERS) -> None:
        self._remembered = remembered
        self._first: OrderedDict[bytes, Position] = OrderedDict()

    def first_of(self, stored: StoredLetter) -> Position | None:
        """Where the same letter stood before, or None; it is remembered then."""
        letter = stored.letter
        if not letter.original_topic:  # of another program: nothing tells two of them apart
            return None
        origin = (letter.original_topic, letter.original_partition, letter.original_offset)
        identity = repr((letter.request_id, letter.state_version, letter.redrive_count, origin))
        digest = blake2b(identity.encode(errors="surrogatepass"), digest_size=16).digest()
        first = self._first.setdefault(digest, stored.position)
        self._first.move_to_end(digest)
        if len(self._first) > self._remembered:
            self._first.popitem(last=False)
        return None if first == stored.position else first
