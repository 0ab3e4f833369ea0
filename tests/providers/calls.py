"""What the tests of all providers need: a call to make, and its events."""

from typing import Any

from connectors.providers.base import Answered, Call, CallEvent, Failed, Outcome, Provider
from schemas.request import Message
from schemas.vocabulary import Role

QUESTION = "Why does the moon always show us the same face, and since when has it done so?"


def a_call(**parts: Any) -> Call:
    """A chat, unless told otherwise."""
    defaults: dict[str, Any] = {
        "request_id": "request-1",
        "attempt": 1,
        "model": "some-model",
        "messages": (Message(role=Role.USER, content=QUESTION),),
    }
    return Call(**defaults | parts)


async def events_of(provider: Provider, call: Call) -> list[CallEvent]:
    """Everything that comes of a call."""
    async with provider.open(call) as events:
        return [event async for event in events]


async def outcome_of(provider: Provider, call: Call) -> Outcome:
    """How a call ends: with exactly one outcome, and nothing after it."""
    events = await events_of(provider, call)
    outcomes = [event for event in events if isinstance(event, Answered | Failed)]
    assert len(outcomes) == 1
    assert events[-1] is outcomes[0]
    return outcomes[0]


async def failure_of(provider: Provider, call: Call) -> Failed:
    """How a call fails."""
    outcome = await outcome_of(provider, call)
    assert isinstance(outcome, Failed)
    return outcome


async def answer_of(provider: Provider, call: Call) -> Answered:
    """What a call brings."""
    outcome = await outcome_of(provider, call)
    assert isinstance(outcome, Answered)
    return outcome
