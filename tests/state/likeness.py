"""What the replies of two stores to the same step must have in common."""

from dataclasses import replace
from typing import Any

from connectors.state.base import Admitted, Busy, Lease, LostCall

CLOCK_VERSIONS = 1_000_000_000_000
"""Versions above this are those of requests in doubt: from the store's clock."""


def alike(reply: Any) -> Any:
    """What two stores must agree on: not fences, times, or versions that came from a clock."""
    match reply:
        case Lease():
            return (reply.request_id, reply.attempt, alike_version(reply.version), reply.is_own)
        case LostCall():
            return (reply.attempt, reply.owner)
        case Busy():
            return reply.retry_after_ms > 0
        case list() | tuple():
            return [alike(part) for part in reply]
        case bytes() | str() | int() | None:
            return reply
    fields = {name: getattr(reply, name) for name in reply.__slots__}
    return (
        type(reply),
        {name: value > 0 for name, value in fields.items() if name == "held_ms"},
        {name: alike_version(value) for name, value in fields.items() if name == "version"},
        {name: alike(value) for name, value in fields.items() if name not in ("held_ms", "version")},
    )


def alike_version(version: int) -> int:
    return min(version, CLOCK_VERSIONS)


def as_first(reply: Any) -> Any:
    """The reply to a step made again, as if it were the first."""
    return replace(reply, repeated=False) if isinstance(reply, Admitted) else alike(reply)
