"""What the scripts of `lua/` reply, in the words of `base`."""

import json
from typing import Any

from connectors.state.base import (
    Admission,
    Admitted,
    CalledOff,
    Doubtful,
    Duplicate,
    Full,
    Known,
    LostCall,
    Moved,
    Place,
    Refusal,
    Rescheduled,
    Settled,
    Stale,
)
from schemas.vocabulary import State


def admission_of(reply: list[Any]) -> Admission:
    """What `admit.lua` and `refuse.lua` reply."""
    match reply:
        case [b"admitted", version, attempt, repeated, cancelled]:
            return Admitted(version, attempt=attempt, repeated=bool(repeated), cancelled=bool(cancelled))
        case [b"duplicate", state]:
            return Duplicate(State(state.decode()))
        case [b"full", requests, size_bytes]:
            return Full(requests, size_bytes)
        case _:
            return settled_of(reply)


def refusal_of(reply: list[Any]) -> Refusal:
    """What `refuse.lua` replies."""
    match reply:
        case [b"doubtful", version]:
            return Doubtful(version)
        case _:
            admission = admission_of(reply)
            if isinstance(admission, Full):
                raise TypeError("a refusal is not counted, so there is always room for it")
            return admission


def rescheduled_of(reply: list[Any] | None) -> Rescheduled:
    """What `reschedule.lua` replies."""
    match reply:
        case None:
            return None
        case [b"called off"]:
            return CalledOff()
        case _:
            return settled_of(reply)


def moved_of(reply: list[Any]) -> Moved | Stale | Settled:
    """What `requeue.lua` replies, and `claim.lua` where there is no lease to be had."""
    match reply:
        case [b"moved", state, version, summary]:
            return Moved(State(state.decode()), version, summary)
        case [b"stale"]:
            return Stale()
        case _:
            return settled_of(reply)


def settled_of(reply: list[Any]) -> Settled:
    """How a request stands, where a step was not possible."""
    _, state, version, outcome, place = reply
    return Settled(State(state.decode()), version, outcome, _place_of(place))


def _place_of(text: bytes | None) -> Place | None:
    if not text:
        return None
    partition, _, offset = text.partition(b"-")
    return Place(int(partition), int(offset))


def known_of(request_id: str, reply: list[Any]) -> Known:
    """What `look.lua` replies of one request."""
    state, version, summary, held_ms, attempt, owner, started_ms, lost_calls, outcome, in_doubt, cancelled = reply
    running = LostCall(attempt=attempt, owner=owner.decode(), started_ms=started_ms) if owner else None
    return Known(
        request_id=request_id,
        state=State(state.decode()),
        version=version,
        summary=summary,
        held_ms=held_ms,
        running=running,
        lost_calls=lost_calls_of(lost_calls),
        outcome=outcome,
        in_doubt=bool(in_doubt),
        cancelled=bool(cancelled),
    )


def id_of_member(member: bytes) -> str:
    """The request of a member `<size>:<id>` of the deadlines."""
    return member.decode().partition(":")[2]


def lost_calls_of(text: bytes) -> tuple[LostCall, ...]:
    """The lost calls as the scripts keep them: JSON, or nothing."""
    if not text:
        return ()
    return tuple(LostCall(attempt=attempt, owner=owner, started_ms=ms) for attempt, owner, ms in json.loads(text))
