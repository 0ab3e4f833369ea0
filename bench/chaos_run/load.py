"""What is sent: requests of many kinds, drawn from a seed. The same seed gives the same requests in the same order."""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from schemas import LLMRequest
from schemas.request import Message
from schemas.vocabulary import DuplicatePolicy, Kind, Priority, Role

PROVIDERS = ("alpha", "beta")
MODEL = "chaos-1"
TENANTS = ("whale", "whale", "whale", "shoal-1", "shoal-2", "shoal-3")
"""One tenant sends half of everything."""

_PRIORITIES = (Priority.HIGH, Priority.NORMAL, Priority.NORMAL, Priority.NORMAL, Priority.LOW)
_ESSAYS = (
    "The gate is shut. The water waits. A hand turns the wheel, and the boats go up.",
    "Notwithstanding the aforementioned impediments, navigability necessitates impoundment.",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """One request to come. `copy_after_seconds`: the same bytes are sent again, at once (0) or when it may have ended.

    Both `after` count from the sending on.
    """

    draft: LLMRequest
    round: int
    copy_after_seconds: float | None = None
    deadline_seconds: float | None = None
    cancel_after_seconds: float | None = None

    def request(self, now: datetime) -> LLMRequest:
        """As it is sent at this moment: a deadline is a point in time."""
        if self.deadline_seconds is None:
            return self.draft
        return self.draft.model_copy(update={"deadline_at": now + timedelta(seconds=self.deadline_seconds)})


def plan(*, seed: int, requests: int, rounds: int) -> list[Planned]:
    """All requests of a run, in the order in which they are sent, spread evenly over its rounds."""
    dice = random.Random(seed)
    return [_planned(dice, number, round_number=number * rounds // requests) for number in range(requests)]


def _planned(dice: random.Random, number: int, *, round_number: int) -> Planned:
    request_id = f"chaos-{number:06d}"
    # What identifies a call on the wire is its prompt alone; the provider reads from it how long to take as well.
    take_ms = dice.randint(900, 2500) if dice.random() < 0.03 else dice.randint(30, 400)
    marked = f"[[{request_id} {take_ms}]] What is a sluice?"
    pinned = dice.choice((None, None, None, None, None, None, "alpha", "beta", "beta", "beta"))
    is_comparison = dice.random() < 0.25
    draft = LLMRequest(
        request_id=request_id,
        tenant_id=dice.choice(TENANTS),
        correlation_id=f"round-{round_number}",
        kind=Kind.COMPARISON if is_comparison else Kind.CHAT,
        messages=[] if is_comparison else [Message(role=Role.USER, content=marked)],
        prompt=marked if is_comparison else None,
        essay_a=_ESSAYS[0] if is_comparison else None,
        essay_b=_ESSAYS[1] if is_comparison else None,
        model=MODEL,
        provider=pinned,
        stream=dice.random() < 0.3,
        priority=dice.choice(_PRIORITIES),
        allow_failover=pinned is None and dice.random() < 0.4,
        duplicate_policy=DuplicatePolicy.FAIL if dice.random() < 0.05 else DuplicatePolicy.RETRY,
    )
    return Planned(
        draft=draft,
        round=round_number,
        copy_after_seconds=dice.choice((0.0, dice.uniform(1, 12))) if dice.random() < 0.06 else None,
        deadline_seconds=dice.uniform(3, 10) if dice.random() < 0.04 else None,
        cancel_after_seconds=dice.uniform(0, 2) if dice.random() < 0.03 else None,
    )
