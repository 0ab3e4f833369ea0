"""The soak's own checks can fail: a lost end, a push told twice, a gap, memory that grows, a log that complains."""

from io import StringIO

import pytest
from rich.console import Console

import bench.soak
from bench.live_client import LiveClient
from bench.soak import Report, Sample, Soak, complaints, show
from connectors.settings import Settings

END, RESULT = ("status", "soak-0", 3, 0), ("result", "soak-0", 3, 0)


def soak_after(rss_mib: list[float]) -> Soak:
    """One that has run its time, with these samples of memory."""
    run = Soak(Settings(), 0, 0.0, 0, lambda _line: None)
    run.report.samples = [Sample(at * 30.0, mib, 10.0) for at, mib in enumerate(rss_mib)]
    run._ended = {"soak-0"}
    return run


def client(*told: tuple[str, str, int, int], gap: str | None = None) -> LiveClient:
    found = LiveClient(0, [{"all": True}])
    found.told = list(told)
    found.answers = [{"type": "resumed", "gap": gap}]
    return found


async def problems_of(*clients: LiveClient) -> list[str]:
    run = soak_after([])
    await run._check_told(list(clients))
    return run.report.problems


async def test_all_is_well_where_every_client_was_told_every_end_once() -> None:
    """In whatever order."""
    assert await problems_of(client(END, RESULT), client(RESULT, END)) == []


async def test_an_end_that_one_client_missed_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or its result; another client that was told does not make up for it."""
    monkeypatch.setattr(bench.soak, "CATCH_UP_SECONDS", 0.01)
    assert await problems_of(client(END, RESULT), client(RESULT)) == ["steady clients miss 1 of 4 ends"]
    assert await problems_of(client(END), client(RESULT)) == ["steady clients miss 2 of 4 ends"]


async def test_pushes_that_come_twice_and_gaps_are_problems() -> None:
    """Steady clients resume: they have to get exactly what they missed."""
    assert await problems_of(client(END, RESULT, END)) == ["1 pushes came twice"]
    assert await problems_of(client(END, RESULT, gap="expired")) == ["a steady client met gaps: ['expired']"]


@pytest.mark.parametrize(
    ("rss_mib", "is_flat"),
    [
        ([50, 100, 101, 100, 102, 99, 103, 104], True),
        ([50, 100, 100, 160, 100, 100, 100, 100], True),  # a peak that goes away
        ([50, 100, 100, 110, 120, 130, 140, 150], False),
    ],
)
def test_memory_that_grows_is_a_problem(rss_mib: list[float], is_flat: bool) -> None:
    """From the second quarter to the last."""
    run = soak_after(rss_mib)
    run._check_memory()
    assert (run.report.problems == []) is is_flat


def test_a_log_may_say_what_is_expected_and_nothing_else() -> None:
    """A traceback is no JSON; errors and unknown warnings are complaints."""
    expected = [
        '{"level": "info", "event": "bridge_serving"}',
        '{"level": "warning", "event": "bridge_has_no_ticket_keys"}',
    ]
    wrong = [
        '{"level": "warning", "event": "bridge_feed_interrupted"}',
        '{"level": "error", "event": "bridge_closes_client_not"}',
        "Traceback (most recent call last):",
    ]
    assert complaints("\n".join(expected + wrong)) == wrong
    assert complaints("\n".join(expected)) == []


def test_a_report_shows_memory_by_the_minute_and_what_is_wrong() -> None:
    """Two samples a minute: the median of each."""
    report = soak_after([100, 110, 120, 140]).report
    assert report.by_minute() == [(0, 105, 10), (1, 130, 10)]
    out = StringIO()
    show(report, Console(file=out, width=120))
    assert "130.0" in out.getvalue()
    assert "passed" in out.getvalue()
    report.problems.append("memory grew")
    show(Report(1.0, problems=["memory grew"]), Console(file=out, width=120))
    assert "FAILED" in out.getvalue()
