"""What a run leaves behind, as plain values: the checker's whole input. Times are seconds since the epoch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """A request that Kafka has acknowledged, what its sender had asked for, and when its sender saw the result.

    `round`: counted from 1, in which it was sent.
    """

    request_id: str
    round: int = 0
    provider: str | None = None
    fail_when_lost: bool = False
    deadline: float | None = None
    cancel_asked: float | None = None
    copies: int = 1
    answered: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """A record of llm.status. `order` is its place in its partition."""

    request_id: str
    ce_id: str
    state: str
    version: int
    attempt: int = 0
    possibly_billed_calls: int = 0
    order: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """A record of llm.attempts, or one within a result. `call` is the provider's name for it, where it was learned."""

    request_id: str
    number: int
    outcome: str
    provider: str
    possibly_billed: bool
    call: str | None = None
    worker: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """A record of llm.results."""

    request_id: str
    ce_id: str
    status: str
    version: int
    answer: str | None = None
    category: str | None = None
    attempts: tuple[Attempt, ...] = ()
    possibly_billed_calls: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A call as the provider tells it. `status`: what was sent; `cut`, `gone`, or None where it never ended."""

    call: str
    provider: str
    request_id: str
    begun: float = 0.0
    ended: float | None = None
    status: int | str | None = 200

    @property
    def is_refusal(self) -> bool:
        """Answered with an error status, before any work."""
        return isinstance(self.status, int) and self.status >= 400


@dataclass(frozen=True, kw_only=True, slots=True)
class Logs:
    """Everything. `unread`: records that a group had not committed at the end, by topic; `counted_still`: requests
    that the shared state still counts as outstanding, None where nobody asked.
    """

    sent: tuple[Sent, ...]
    events: tuple[Event, ...]
    results: tuple[Result, ...]
    attempts: tuple[Attempt, ...]
    calls: tuple[Call, ...]
    dead_letters: tuple[str | None, ...] = ()
    unread: tuple[tuple[str, int], ...] = ()
    counted_still: int | None = None
