"""What every stage works with, and a record as it came from Kafka."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from connectors.kafka.producer import Producer
from connectors.settings import Settings
from connectors.state.base import StateStore
from policy.catalogue import Catalogue
from schemas.codec import Codec
from schemas.envelope import Header

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The clock of a running system. Stages take it as an argument."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """One record of a topic, as it was written. `is_null`: it had no value at all, and `value` is empty."""

    topic: str
    partition: int
    offset: int
    timestamp: datetime
    key: bytes | None
    value: bytes
    headers: tuple[Header, ...] = ()
    is_null: bool = False

    @property
    def origin(self) -> str:
        return f"{self.topic}-{self.partition}-{self.offset}"


@dataclass(frozen=True, kw_only=True, slots=True)
class StageContext:
    """The connections and settings of one worker process. `worker` names it: host and process id."""

    settings: Settings
    catalogue: Catalogue
    state: StateStore
    producer: Producer
    codec: Codec
    worker: str
    now: Clock = field(default=utc_now)
