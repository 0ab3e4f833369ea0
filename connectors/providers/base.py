"""One protocol for every provider, so that a worker never needs to know whom it talks to.

    async with provider.open(call) as events:
        async for event in events:        # Text, Text, ..., then exactly one Answered or Failed
            ...

A provider never raises for what the provider did: that is a `Failed`. Leaving the block, or cancelling the task in
it, closes the upstream connection at once. Time limits for the whole call are the caller's
(`streams.calling`); those that only an SDK can hold (connect) are the provider's.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from schemas.attempt import Problem, Usage
from schemas.request import Message, Parameters


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonInput:
    """The parts of a comparison, for providers that judge without a language model."""

    prompt: str
    essay_a: str
    essay_b: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One attempt, as a provider sees it. `messages` is complete: a comparison's prompt is rendered into it."""

    request_id: str
    attempt: int
    model: str
    messages: tuple[Message, ...]
    parameters: Parameters = field(default_factory=Parameters)
    response_schema: dict[str, Any] | None = None
    response_schema_name: str = "answer"
    stream: bool = False
    comparison: ComparisonInput | None = None
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer, as it arrived."""

    text: str


class LimitedResource(StrEnum):
    """What a provider counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"


@dataclass(frozen=True, kw_only=True, slots=True)
class RateLimit:
    """One limit as the provider's headers told it with this answer. Absent: it was not said."""

    resource: LimitedResource
    limit: int | None = None
    remaining: int | None = None
    resets_in_seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """The call ended as it should. `text` is the whole answer."""

    text: str
    finish_reason: str
    model: str
    usage: Usage | None = None
    provider_request_id: str | None = None
    limits: tuple[RateLimit, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The call did not. `possibly_billed`: it went far enough that the provider may charge for it."""

    problem: Problem
    possibly_billed: bool = False
    usage: Usage | None = None
    provider_request_id: str | None = None
    limits: tuple[RateLimit, ...] = ()


Outcome = Answered | Failed
CallEvent = Text | Answered | Failed


class Provider(Protocol):
    """One configured provider. Safe for many calls at once."""

    name: str

    def open(self, call: Call) -> AbstractAsyncContextManager[AsyncIterator[CallEvent]]: ...

    async def close(self) -> None: ...
