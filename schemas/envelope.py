"""Record headers: CloudEvents 1.0 in Kafka binary mode, and W3C trace context.

Sources: CloudEvents Kafka protocol binding 1.0.2, section 3.2; W3C Trace Context.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid4, uuid5

Header = tuple[str, bytes]
Headers = Sequence[Header]

AVRO_CONTENT_TYPE = "application/avro"
JSON_CONTENT_TYPE = "application/json"

EVENT_NAMESPACE = UUID("6f2f0b7e-54b1-5d5e-9d6b-1b8f6c1c2a10")
"""Never change it: event ids are computed from it, and readers drop repeats by them."""
_MAX_DIGITS = 15


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
    tenant_id: str | None = None,
    model: str | None = None,
    state: str | None = None,
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
    if tenant_id is not None:
        headers.append(("ce_tenantid", tenant_id.encode()))
    if model is not None:
        headers.append(("ce_model", model.encode()))
    if state is not None:
        headers.append(("ce_state", state.encode()))
    headers.extend(trace)
    return headers


def header(headers: Iterable[Header], name: str) -> str | None:
    """The last value under this name as text, or None. Headers may repeat, and the last one counts."""
    found = None
    for key, value in headers:
        if key == name and value is not None:
            found = value
    return None if found is None else found.decode("utf-8", errors="replace")


def header_number(headers: Iterable[Header], name: str) -> int | None:
    """The last value under this name as a whole number, or None for what is none. Spring writes some in binary."""
    text = header(headers, name) or ""
    # 15 digits are exact as a number of Lua too: what comes from outside may get into the shared state.
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None


def iso(moment: datetime) -> str:
    """RFC 3339 with milliseconds and Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
