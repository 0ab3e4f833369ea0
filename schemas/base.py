"""What all records share: the base model and the field types that occur in several of them."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

LONG_MIN, LONG_MAX = -(2**63), 2**63 - 1
"""What Avro's long can hold: a number from outside that is larger would be read, and then not be written."""

ID_PATTERN = r"^[A-Za-z0-9._:@-]+$"
"""Characters of an identifier. Braces are left out: Redis Cluster reads them as a hash tag."""


def _utc_milliseconds(moment: datetime) -> datetime:
    """What Avro's timestamp-millis can hold, so that a record survives the wire unchanged."""
    if moment.tzinfo is None:
        raise ValueError("needs a time zone, as in 2026-11-21T12:00:00Z")
    try:
        return moment.astimezone(UTC).replace(microsecond=moment.microsecond // 1000 * 1000)
    except OverflowError as error:
        raise ValueError("is not between the years 1 and 9999 in UTC") from error


def epoch_ms(moment: datetime) -> int:
    """Milliseconds since 1970, as Kafka and the shared state count them; what is finer is cut off.

    A moment without a time zone is one of the local zone, as everywhere in `datetime`.
    """
    return (moment.astimezone(UTC) - _EPOCH) // timedelta(milliseconds=1)


Identifier = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=ID_PATTERN)]
ProviderName = Annotated[str, StringConstraints(min_length=1, max_length=40, pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Timestamp = Annotated[datetime, AfterValidator(_utc_milliseconds)]
Version = Annotated[int, Field(ge=1)]
Milliseconds = Annotated[float, Field(ge=0)]


class Part(BaseModel):
    """A named part of a record: immutable, and without room for a field that the schema does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Record(Part):
    """A value of a topic. Each subclass is one Avro record of the namespace `sluice.v1`."""


def milliseconds_between(start: datetime, end: datetime) -> float:
    """Milliseconds from `start` to `end`, never below zero (clocks of two hosts may disagree)."""
    return max(0.0, (end - start).total_seconds() * 1000)
