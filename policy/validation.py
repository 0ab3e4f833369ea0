"""What a request must satisfy beyond its schema, and what can be read of one that does not."""

import json
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

from policy.comparison import schema_problem
from policy.failures import problem
from policy.summary import Identity
from schemas.attempt import Problem
from schemas.base import ID_PATTERN
from schemas.codec import CodecError, UndecodableError
from schemas.request import LLMRequest
from schemas.vocabulary import FailureCategory, Kind

_IDENTIFIER = re.compile(ID_PATTERN)
_MAX_ID_LENGTH = 128
LATEST = datetime(9999, 12, 31, tzinfo=UTC)


def check(request: LLMRequest, *, result_topics: Collection[str]) -> Problem | None:
    """Rules beyond the schema: the deployment's allow-list, and that an answer could be checked at all."""
    if request.result_topic is not None and request.result_topic not in result_topics:
        return problem(
            category=FailureCategory.DENIED,
            message=f"the topic {request.result_topic} is not on the allow-list",
            field="result_topic",
            remedy="leave it out, or have it added to worker.result_topics",
        )
    if request.response_format is not None:
        return schema_problem(json.loads(request.response_format.json_schema))
    return None


def too_large(size_bytes: int, limit_bytes: int) -> Problem | None:
    """Whether a record is over the limit."""
    if size_bytes <= limit_bytes:
        return None
    return problem(
        category=FailureCategory.TOO_LARGE,
        message=f"the record has {size_bytes:,} bytes, and {limit_bytes:,} are allowed",
        field="(record)",
        remedy="shorten the texts, or raise worker.max_request_bytes",
    )


def codec_problem(error: CodecError) -> Problem:
    """What to tell the sender of a record that could not be read or breaks the contract."""
    if isinstance(error, UndecodableError):
        return problem(
            category=FailureCategory.UNDECODABLE,
            message=error.reason,
            field="(record)",
            remedy="send JSON with content-type application/json, or Avro by schemas/avro/LLMRequest.avsc",
        )
    return problem(
        category=FailureCategory.INVALID_REQUEST,
        message=error.reason,
        field=error.field,
        remedy="see schemas/avro/LLMRequest.avsc",
    )


def deadline_passed(deadline: datetime) -> Problem:
    """The problem of a request whose time ran out."""
    return problem(
        category=FailureCategory.DEADLINE,
        message=f"the deadline {deadline.isoformat(timespec='milliseconds')} has passed",
        field="deadline_at",
        remedy="send it again with a later deadline",
    )


def deadline_of(request: LLMRequest, *, submitted_at: datetime, default_seconds: float) -> datetime:
    """The request's own deadline, or the default counted from its submission."""
    try:
        return request.deadline_at or submitted_at + timedelta(seconds=default_seconds)
    except OverflowError:
        return LATEST


def readable_identity(fields: Mapping[str, object], key: bytes | None) -> Identity | None:
    """Who sent a record that is not valid: by its fields, else by its key. None when no id can be read."""
    request_id = _identifier(fields.get("request_id")) or _identifier(_text(key))
    if request_id is None:
        return None
    kind = fields.get("kind")
    return Identity(
        request_id=request_id,
        tenant_id=_identifier(fields.get("tenant_id")) or "default",
        user_id=_identifier(fields.get("user_id")),
        correlation_id=_identifier(fields.get("correlation_id")),
        kind=Kind(kind) if isinstance(kind, str) and kind in set(Kind) else Kind.CHAT,
    )


def _identifier(value: object) -> str | None:
    if isinstance(value, str) and len(value) <= _MAX_ID_LENGTH and _IDENTIFIER.fullmatch(value):
        return value
    return None


def _text(key: bytes | None) -> str | None:
    try:
        return key.decode() if key else None
    except UnicodeDecodeError:
        return None
