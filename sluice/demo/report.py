"""What the demo found out: wins, terminal states, and the pipeline's own overhead. Pure."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas import LLMResult, StatusEvent
from schemas.vocabulary import State
from sluice.demo.essays import Essay


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """One run. `pairs`: both essays and the request's id; `events`: terminal events, each with its `ce_id`."""

    run: str
    pairs: Sequence[tuple[Essay, Essay, str]]
    results: Mapping[str, LLMResult]
    events: Sequence[tuple[str | None, StatusEvent]]
    seconds: float

    @property
    def requests(self) -> int:
        return len(self.pairs)

    @property
    def duplicate_terminal_events(self) -> int:
        return second_terminal_events(self.events)

    @property
    def standings(self) -> "list[Standing]":
        return ranking(self.pairs, self.results)

    @property
    def completed(self) -> int:
        return self.states()[State.COMPLETED]

    @property
    def lost(self) -> int:
        return self.requests - len(self.results)

    @property
    def failed(self) -> int:
        return len(self.results) - self.completed

    @property
    def is_good(self) -> bool:
        """Every request completed, once."""
        return self.completed == self.requests and not self.duplicate_terminal_events

    @property
    def requests_per_second(self) -> float:
        return round(len(self.results) / self.seconds, 1)

    def states(self) -> Counter[State]:
        return Counter(result.status for result in self.results.values())

    def problems(self) -> list[tuple[str, int, str]]:
        """Why requests did not complete: category, how many of it, and what was said of the first. Most first."""
        messages: dict[str, list[str]] = {}
        for result in self.results.values():
            if result.problem is not None:
                told = "; ".join(part for part in (result.problem.message, result.problem.remedy) if part)
                messages.setdefault(result.problem.category, []).append(told)
        found = [(category, len(texts), texts[0]) for category, texts in messages.items()]
        return sorted(found, key=lambda problem: -problem[1])

    def overhead_ms(self) -> dict[str, float | None]:
        """Total minus the provider's time, in milliseconds."""
        values = sorted(result.timings.overhead_ms for result in self.results.values())
        return {name: percentile(values, share) for name, share in (("p50", 0.50), ("p95", 0.95))}

    def as_json(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "requests": self.requests,
            "completed": self.completed,
            "failed": self.failed,
            "lost": self.lost,
            "duplicate_terminal_events": self.duplicate_terminal_events,
            "states": dict(self.states()),
            "overhead_ms": self.overhead_ms(),
            "requests_per_second": self.requests_per_second,
            "seconds": round(self.seconds, 3),
            "possibly_billed_calls": sum(result.possibly_billed_calls for result in self.results.values()),
            "problems": [
                {"category": category, "requests": count, "message": message}
                for category, count, message in self.problems()
            ],
            "ranking": [
                {
                    "essay": standing.essay.label,
                    "author": standing.essay.author,
                    "title": standing.essay.title,
                    "wins": standing.wins,
                    "comparisons": standing.comparisons,
                }
                for standing in self.standings
            ],
        }


@dataclass(frozen=True, slots=True)
class Standing:
    """One essay's place in the ranking."""

    essay: Essay
    wins: int
    comparisons: int


def ranking(pairs: Sequence[tuple[Essay, Essay, str]], results: Mapping[str, LLMResult]) -> list[Standing]:
    """Essays by wins, most first; equal ones by their number. `pairs` holds both essays and the request's id."""
    wins: Counter[int] = Counter()
    comparisons: Counter[int] = Counter()
    essays: dict[int, Essay] = {}
    for first, second, request_id in pairs:
        essays[first.number], essays[second.number] = first, second
        result = results.get(request_id)
        if result is None or result.answer is None or result.answer.comparison is None:
            continue
        winner = first if result.answer.comparison.winner == "Essay A" else second
        wins[winner.number] += 1
        comparisons.update((first.number, second.number))
    standings = [Standing(essay, wins[number], comparisons[number]) for number, essay in essays.items()]
    return sorted(standings, key=lambda standing: (-standing.wins, standing.essay.number))


def second_terminal_events(events: Sequence[tuple[str | None, StatusEvent]]) -> int:
    """Terminal events beyond one per request, not counting repeats of the same `ce_id`."""
    ids: dict[str, set[str | None]] = {}
    for identity, event in events:
        if event.state.is_terminal:
            ids.setdefault(event.request_id, set()).add(identity)
    return sum(len(found) - 1 for found in ids.values())


def percentile(ascending: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile of sorted values; None of nothing."""
    if not ascending:
        return None
    # Rounded before: a share is not exact, and 0.07 * 100 would be more than 7.
    rank = max(1, math.ceil(round(share * len(ascending), 6)))
    return round(ascending[rank - 1], 2)
