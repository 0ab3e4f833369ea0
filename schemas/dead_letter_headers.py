"""Headers of a dead letter, and of a record that was redriven from there.

Source of the `kafka_dlt-` names: Spring for Apache Kafka, `KafkaHeaders.DLT_*`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from schemas.base import epoch_ms
from schemas.dead_letter import DeadLetter
from schemas.envelope import Header, Headers, header, header_number
from schemas.vocabulary import FailureCategory

_REDRIVE = "sluice_redrive-"
_DLT = "kafka_dlt-"
_DLT_CATEGORY = "sluice_dlt-category"
_DLT_FIELD = "sluice_dlt-field"
_DLT_REQUEST_ID = "sluice_dlt-request-id"
_DLT_TENANT_ID = "sluice_dlt-tenant-id"
_DLT_STATE_VERSION = "sluice_dlt-state-version"
_DLT_ATTEMPT = "sluice_dlt-attempt"
_DLT_PROVIDER = "sluice_dlt-provider"
_DLT_MODEL = "sluice_dlt-model"
_DLT_REDRIVE_COUNT = "sluice_dlt-redrive-count"
VALUE_LEFT_OUT = "sluice_dlt-value-left-out"
"""Set where the value is not there, for its size or because Kafka no longer has it: how many bytes, and where from."""
_OURS = (_DLT, "sluice_dlt-", _REDRIVE)


def dead_letter_headers(letter: DeadLetter, original: Headers) -> list[Header]:
    """The headers that came in, and after them those of this dead letter. Earlier ones are replaced."""
    kept = [(name, value) for name, value in original if not name.startswith(_OURS)]
    added: list[tuple[str, str | None]] = [
        (_DLT + "original-topic", letter.original_topic),
        (_DLT + "original-partition", str(letter.original_partition)),
        (_DLT + "original-offset", str(letter.original_offset)),
        (
            _DLT + "original-timestamp",
            str(epoch_ms(letter.original_timestamp)) if letter.original_timestamp else None,
        ),
        (_DLT + "exception-fqcn", f"sluice.{letter.category}"),
        (_DLT + "exception-message", letter.message),
        (_DLT_CATEGORY, letter.category),
        (_DLT_FIELD, letter.field),
        (_DLT_REQUEST_ID, letter.request_id),
        (_DLT_TENANT_ID, letter.tenant_id),
        (_DLT_STATE_VERSION, str(letter.state_version)),
        (_DLT_ATTEMPT, str(letter.attempt)),
        (_DLT_PROVIDER, letter.provider),
        (_DLT_MODEL, letter.model),
        (_DLT_REDRIVE_COUNT, str(letter.redrive_count)),
    ]
    return kept + [(name, value.encode()) for name, value in added if value is not None]


def read_dead_letter(headers: Headers, *, size_bytes: int) -> DeadLetter:
    """The description of a dead letter, from its headers. What another program wrote there is passed over."""
    return DeadLetter(
        request_id=header(headers, _DLT_REQUEST_ID),
        tenant_id=header(headers, _DLT_TENANT_ID),
        category=_category(header(headers, _DLT_CATEGORY)),
        message=header(headers, _DLT + "exception-message") or "",
        field=header(headers, _DLT_FIELD),
        original_topic=header(headers, _DLT + "original-topic") or "",
        original_partition=header_number(headers, _DLT + "original-partition") or 0,
        original_offset=header_number(headers, _DLT + "original-offset") or 0,
        original_timestamp=_moment(header_number(headers, _DLT + "original-timestamp")),
        redrive_count=header_number(headers, _DLT_REDRIVE_COUNT) or 0,
        state_version=header_number(headers, _DLT_STATE_VERSION) or 0,
        attempt=header_number(headers, _DLT_ATTEMPT) or 0,
        provider=header(headers, _DLT_PROVIDER),
        model=header(headers, _DLT_MODEL),
        size_bytes=size_bytes,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Redrive:
    """What a redriven record says of the lives before: how many, and which version and call number ended the last."""

    count: int
    state_version: int
    attempt: int


def redrive_headers(letter: DeadLetter, dead: Headers) -> list[Header]:
    """The headers that once came in, and those that tell a redriven record from a duplicate."""
    added = {
        "count": letter.redrive_count + 1,
        "state-version": letter.state_version,
        "attempt": letter.attempt,
    }
    kept = [(name, value) for name, value in dead if not name.startswith(_OURS)]
    return kept + [(_REDRIVE + name, str(number).encode()) for name, number in added.items()]


def read_redrive(headers: Headers) -> Redrive | None:
    """What a redriven record says; None for one that comes for the first time."""
    count = header_number(headers, _REDRIVE + "count")
    if not count:
        return None
    return Redrive(
        count=count,
        state_version=header_number(headers, _REDRIVE + "state-version") or 0,
        attempt=header_number(headers, _REDRIVE + "attempt") or 0,
    )


def _category(word: str | None) -> FailureCategory:
    try:
        return FailureCategory(word or "unknown")
    except ValueError:  # a newer version's word
        return FailureCategory.UNKNOWN


def _moment(timestamp_ms: int | None) -> datetime | None:
    try:
        return None if timestamp_ms is None else datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
