"""Record headers: CloudEvents 1.0 in Kafka binary mode, W3C trace context, and those of a dead letter.

Sources: CloudEvents Kafka protocol binding 1.0.2, section 3.2; W3C Trace Context; Spring for Apache Kafka,
`KafkaHeaders.DLT_*`.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid4, uuid5

from schemas.dead_letter import DeadLetter
from schemas.vocabulary import FailureCategory

Header = tuple[str, bytes]
Headers = Sequence[Header]

AVRO_CONTENT_TYPE = "application/avro"
JSON_CONTENT_TYPE = "application/json"

EVENT_NAMESPACE = UUID("6f2f0b7e-54b1-5d5e-9d6b-1b8f6c1c2a10")
"""Never change it: event ids are computed from it, and readers drop repeats by them."""


def event_id(request_id: str, state_version: int) -> str:
    """The same change of state always has the same id, however often it is published."""
    return str(uuid5(EVENT_NAMESPACE, f"{request_id}:{state_version}"))


def result_id(request_id: str, state_version: int) -> str:
    """The id of a result, as stable as that of its event."""
    return str(uuid5(EVENT_NAMESPACE, f"{request_id}:{state_version}:result"))


def attempt_id(request_id: str, attempt: int) -> str:
    """The id of an attempt record."""
    return str(uuid5(EVENT_NAMESPACE, f"{request_id}:attempt:{attempt}"))


def cloud_event(
    *,
    type: str,  # noqa: A002 - the specification's own word
    source: str,
    key: str,
    id: str | None = None,  # noqa: A002 - the specification's own word
    time: datetime | None = None,
    correlation_id: str | None = None,
    causation_id: str | None = None,
    sequence: int | None = None,
    expiry_time: datetime | None = None,
    content_type: str = AVRO_CONTENT_TYPE,
    trace: Headers = (),
) -> list[Header]:
    """Headers of one record. `trace` holds traceparent and tracestate, if any."""
    headers: list[Header] = [
        ("ce_specversion", b"1.0"),
        ("ce_type", type.encode()),
        ("ce_source", source.encode()),
        ("ce_id", (id or str(uuid4())).encode()),
        ("ce_time", iso(time or datetime.now(UTC)).encode()),
        ("ce_partitionkey", key.encode()),
        ("content-type", content_type.encode()),
    ]
    if correlation_id is not None:
        headers.append(("ce_correlationid", correlation_id.encode()))
    if causation_id is not None:
        headers.append(("ce_causationid", causation_id.encode()))
    if sequence is not None:
        headers.append(("ce_sequence", str(sequence).encode()))
    if expiry_time is not None:
        headers.append(("ce_expirytime", iso(expiry_time).encode()))
    headers.extend(trace)
    return headers


def header(headers: Iterable[Header], name: str) -> str | None:
    """The last value under this name as text, or None. Headers may repeat, and the last one counts."""
    found = None
    for key, value in headers:
        if key == name and value is not None:
            found = value
    return None if found is None else found.decode("utf-8", errors="replace")


def iso(moment: datetime) -> str:
    """RFC 3339 with milliseconds and Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_DLT = "kafka_dlt-"
_DLT_CATEGORY = "sluice_dlt-category"
_DLT_FIELD = "sluice_dlt-field"
_DLT_REQUEST_ID = "sluice_dlt-request-id"
_DLT_TENANT_ID = "sluice_dlt-tenant-id"
_DLT_REDRIVE_COUNT = "sluice_dlt-redrive-count"
VALUE_LEFT_OUT = "sluice_dlt-value-left-out"
"""Set where the value is larger than the dead-letter topic takes: how many bytes, and where they lie."""


def dead_letter_headers(letter: DeadLetter, original: Headers) -> list[Header]:
    """The headers that came in, and after them those of this dead letter. Earlier ones are replaced."""
    kept = [(name, value) for name, value in original if not name.startswith((_DLT, "sluice_dlt-"))]
    added: list[tuple[str, str | None]] = [
        (_DLT + "original-topic", letter.original_topic),
        (_DLT + "original-partition", str(letter.original_partition)),
        (_DLT + "original-offset", str(letter.original_offset)),
        (
            _DLT + "original-timestamp",
            str(int(letter.original_timestamp.timestamp() * 1000)) if letter.original_timestamp else None,
        ),
        (_DLT + "exception-fqcn", f"sluice.{letter.category}"),
        (_DLT + "exception-message", letter.message),
        (_DLT_CATEGORY, letter.category),
        (_DLT_FIELD, letter.field),
        (_DLT_REQUEST_ID, letter.request_id),
        (_DLT_TENANT_ID, letter.tenant_id),
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
        original_partition=_number(headers, _DLT + "original-partition") or 0,
        original_offset=_number(headers, _DLT + "original-offset") or 0,
        original_timestamp=_moment(_number(headers, _DLT + "original-timestamp")),
        redrive_count=_number(headers, _DLT_REDRIVE_COUNT) or 0,
        size_bytes=size_bytes,
    )


def _category(word: str | None) -> FailureCategory:
    try:
        return FailureCategory(word or "unknown")
    except ValueError:  # a newer version's word
        return FailureCategory.UNKNOWN


def _number(headers: Headers, name: str) -> int | None:
    text = header(headers, name) or ""
    # 18 digits fit into 64 bits. Spring writes these headers in binary.
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def _moment(timestamp_ms: int | None) -> datetime | None:
    try:
        return None if timestamp_ms is None else datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
