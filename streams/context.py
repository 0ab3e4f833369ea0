"""What every stage works with, and a record as it came from Kafka."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from connectors.kafka.producer import Producer
from connectors.settings import Settings
from connectors.state.store import ClaimStore, StateStore
from policy.catalogue import Catalogue
from schemas.codec import Codec
from schemas.envelope import Header
from schemas.task import Origin

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The clock of a running system. Stages take it as an argument."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """One record of a topic, as it was written. `is_null`: it had no value at all, and `value` is empty.

    `is_surely_new`: no other worker can have had it. `may_have_been_called`: one may have made a call for it that the
    shared state does not know of.
    """

    topic: str
    partition: int
    offset: int
    timestamp: datetime
    key: bytes | None
    value: bytes
    headers: tuple[Header, ...] = ()
    is_null: bool = False
    is_surely_new: bool = False
    may_have_been_called: bool = False

    @property
    def origin(self) -> str:
        return f"{self.topic}-{self.partition}-{self.offset}"


class OriginalRecords(Protocol):
    """Reads request records again where they lie."""

    async def fetch(self, origin: Origin) -> Delivery | None:
        """The record as it came in, or None where Kafka no longer has it."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class StageContext:
    """The connections and settings of one worker process. `worker` names it: host and process id."""

    settings: Settings
    catalogue: Catalogue
    state: StateStore
    claims: ClaimStore
    producer: Producer
    codec: Codec
    originals: OriginalRecords
    worker: str
    now: Clock = field(default=utc_now)
