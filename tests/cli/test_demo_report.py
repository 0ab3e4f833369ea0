"""What the demo makes of results and events, and how it tells it."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

from rich.console import Console

from schemas import LLMResult, StatusEvent
from schemas.attempt import Problem
from schemas.result import Answer, Comparison, Timings, Winner
from schemas.vocabulary import FailureCategory, State
from sluice.demo.essays import Essay, pair_requests, read_essays
from sluice.demo.report import Report, percentile
from sluice.demo.show import show

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ESSAYS = [Essay(number=number, author="Jay", title="T" * 100, text="x") for number in (1, 2, 3)]
PAIRS = [(a, b, r.request_id) for a, b, r in pair_requests(ESSAYS, run="run", provider="simulated", model=None)]


def completed(request_id: str, winner: Winner, *, overhead_ms: float = 10) -> LLMResult:
    comparison = Comparison(winner=winner, justification="j" * 60, confidence=3.0)
    return LLMResult(
        request_id=request_id,
        status=State.COMPLETED,
        state_version=3,
        answer=Answer(text="{}", comparison=comparison, finish_reason="stop", model="m"),
        timings=Timings(overhead_ms=overhead_ms),
        submitted_at=NOW,
        finished_at=NOW,
    )


def failed(request_id: str) -> LLMResult:
    problem = Problem(category=FailureCategory.AUTHENTICATION, message="HTTP 401", remedy="check the key")
    return LLMResult(
        request_id=request_id,
        status=State.FAILED,
        state_version=3,
        problem=problem,
        submitted_at=NOW,
        finished_at=NOW,
    )


def terminal(request_id: str) -> StatusEvent:
    return StatusEvent(
        type="QUEUE_REQUEST_COMPLETED",
        request_id=request_id,
        state=State.COMPLETED,
        state_version=3,
        submitted_at=NOW,
        occurred_at=NOW,
    )


def report(*results: LLMResult, events: Sequence[tuple[str | None, StatusEvent]] = ()) -> Report:
    return Report(
        run="run", pairs=PAIRS, results={one.request_id: one for one in results}, events=tuple(events), seconds=2.0
    )


def told(one: Report) -> str:
    console = Console(width=80, color_system=None)
    with console.capture() as captured:
        show(one, console)
    return captured.get()


FIRST, SECOND, THIRD = (request_id for _, _, request_id in PAIRS)
GOOD = report(completed(FIRST, "Essay A"), completed(SECOND, "Essay B"), completed(THIRD, "Essay B", overhead_ms=30))


def test_essays_are_ranked_by_wins() -> None:
    """Of all pairs each essay has one comparison with each other one."""
    assert [(one.essay.number, one.wins, one.comparisons) for one in GOOD.standings] == [
        (3, 2, 2),
        (1, 1, 2),
        (2, 0, 2),
    ]


def test_a_request_without_a_result_is_lost_and_one_that_failed_is_not() -> None:
    """They are counted apart, and neither counts as a comparison."""
    one = report(completed(FIRST, "Essay A"), failed(SECOND))
    assert (one.requests, one.completed, one.failed, one.lost, one.is_good) == (3, 1, 1, 1, False)
    assert sum(standing.comparisons for standing in one.standings) == 2


def test_a_repeated_event_is_no_second_end_and_another_one_is() -> None:
    """Repeats carry the id of the first."""
    same, other = str(uuid4()), str(uuid4())
    assert report(events=[(same, terminal(FIRST)), (same, terminal(FIRST))]).duplicate_terminal_events == 0
    assert report(events=[(same, terminal(FIRST)), (other, terminal(FIRST))]).duplicate_terminal_events == 1


def test_the_json_has_what_was_promised() -> None:
    """And the ranking, as the table has it."""
    found = json.loads(json.dumps(GOOD.as_json()))
    assert {name: found[name] for name in ("requests", "completed", "failed", "lost", "duplicate_terminal_events")} == {
        "requests": 3,
        "completed": 3,
        "failed": 0,
        "lost": 0,
        "duplicate_terminal_events": 0,
    }
    assert found["overhead_ms"] == {"p50": 10, "p95": 30}
    assert found["requests_per_second"] == 1.5
    assert [place["essay"] for place in found["ranking"]] == ["No. 3", "No. 1", "No. 2"]


def test_percentiles_are_values_that_were_measured() -> None:
    """The nearest rank, and nothing where nothing was measured."""
    values = [float(number) for number in range(1, 101)]
    assert (percentile(values, 0.50), percentile(values, 0.95), percentile([7.0], 0.95)) == (50, 95, 7)
    assert percentile([], 0.5) is None


def test_the_outcome_fits_a_terminal() -> None:
    """In 80 columns, an essay a line, with the pipeline's share of the time."""
    text = told(GOOD)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert sum("Jay" in line for line in text.splitlines()) == 3
    assert "3 of 3 completed, none lost, 1.5 a second." in text
    assert "p50 10 ms, p95 30 ms" in text


def test_failures_are_told_with_their_reason_and_remedy() -> None:
    """And no ranking is made of them."""
    text = told(report(failed(FIRST), failed(SECOND)))
    assert "0 of 3 completed, 2 failed, 1 without a result" in text
    assert "2 x authentication: HTTP 401; check the key" in text
    assert "Jay" not in text


def test_the_essays_are_there_and_each_pair_is_asked_once() -> None:
    """A dozen of them make 66 requests, each with an id that a topic takes as key."""
    essays = read_essays()
    requests = [request for _, _, request in pair_requests(essays, run="run", provider="simulated", model=None)]
    assert (len(essays), len({request.request_id for request in requests})) == (12, 66)
