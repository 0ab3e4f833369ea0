"""What a worker of a lane tells of itself."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from schemas.codec import decode_single_object
from schemas.envelope import header
from schemas.lane_report import LaneReport
from schemas.vocabulary import BreakerState, FailureCategory
from streams import lane_reports
from streams.gate import GateSnapshot
from streams.lane_reports import MAX_DURATIONS, LaneReporter, LaneSources
from tests.streams.world import START, Crasher, World

OPEN = GateSnapshot(
    state=BreakerState.OPEN,
    since=START,
    retry_at=START + timedelta(seconds=60),
    reason=FailureCategory.SERVER_ERROR,
)
CLOSED = GateSnapshot(state=BreakerState.CLOSED, since=None, retry_at=None, reason=None)


class Figures:
    """Where the reports' figures come from, to be changed by hand."""

    def __init__(self) -> None:
        self.breaker = CLOSED
        self.in_flight = 3
        self.waiting = 5
        self.backlog = 8
        self.is_away = False

    def sources(self) -> LaneSources:
        return LaneSources(
            breaker=lambda: self.breaker,
            in_flight=lambda: self.in_flight,
            concurrency=4,
            waiting=lambda: self.waiting,
            backlog=lambda: self.backlog,
            is_away=lambda: self.is_away,
        )


class Reporting:
    """A reporter on a world's log."""

    def __init__(self) -> None:
        self.world = World()
        self.figures = Figures()
        context, _ = self.world._process(Crasher(), "/lane")
        self.context = context
        self.reporter = LaneReporter(context, provider="simulated", sources=self.figures.sources())

    def reports(self) -> list[LaneReport]:
        return [decode_single_object(LaneReport, r.value or b"") for r in self.world.written("llm.lane-reports")]

    async def until(self, count: int) -> list[LaneReport]:
        async with asyncio.timeout(10):
            while len(self.reports()) < count:
                await asyncio.sleep(0)
        return self.reports()


async def test_a_report_tells_of_the_breaker_the_calls_and_what_waits() -> None:
    reporting = Reporting()
    reporting.figures.breaker = OPEN
    reporting.figures.is_away = True
    for duration_ms in range(1, 101):
        reporting.reporter.count(duration_ms=float(duration_ms), answered=duration_ms % 4 != 0)
    reporting.world.pass_time(2.5)
    await reporting.reporter.close()
    (report,) = reporting.reports()
    assert (report.provider, report.worker) == ("simulated", reporting.context.worker)
    assert (report.breaker, report.breaker_since, report.breaker_retry_at, report.breaker_reason) == (
        BreakerState.OPEN,
        START,
        START + timedelta(seconds=60),
        FailureCategory.SERVER_ERROR,
    )
    assert (report.in_flight, report.concurrency, report.waiting, report.backlog) == (3, 4, 5, 8)
    assert (report.answered, report.failed, report.interval_ms) == (75, 25, 2500.0)
    assert report.call_ms_p50 == pytest.approx(50.5)
    assert report.call_ms_p95 == pytest.approx(95.05)
    assert (report.shared_state_away, report.stopping) == (True, True)


async def test_its_key_is_the_provider_and_its_headers_those_of_every_record() -> None:
    reporting = Reporting()
    await reporting.reporter.close()
    (record,) = reporting.world.written("llm.lane-reports")
    assert record.key == b"simulated"
    assert header(record.headers, "ce_type") == "sluice.LaneReport"
    assert header(record.headers, "ce_source") == "/sluice/lane/simulated"


async def test_counts_are_those_since_the_report_before() -> None:
    reporting = Reporting()
    reporting.reporter.count(duration_ms=7.0, answered=True)
    reporting.reporter.start()
    first, *_ = await reporting.until(1)
    reporting.reporter.count(duration_ms=9.0, answered=False)
    await reporting.reporter.close()
    last = reporting.reports()[-1]
    assert (first.answered, first.failed, first.call_ms_p50, first.call_ms_p95) == (1, 0, 7.0, 7.0)
    assert (last.answered, last.failed, last.call_ms_p50) == (0, 1, 9.0)
    assert (first.stopping, last.stopping) == (False, True)


async def test_without_calls_there_are_no_durations() -> None:
    reporting = Reporting()
    await reporting.reporter.close()
    (report,) = reporting.reports()
    assert (report.answered, report.failed, report.call_ms_p50, report.call_ms_p95) == (0, 0, None, None)


async def test_a_change_of_the_breaker_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_reports, "INTERVAL_SECONDS", 3600)
    reporting = Reporting()
    reporting.reporter.start()
    await reporting.until(1)
    reporting.figures.breaker = OPEN
    reporting.reporter.breaker_changed()
    reports = await reporting.until(2)
    assert [report.breaker for report in reports] == [BreakerState.CLOSED, BreakerState.OPEN]
    await reporting.reporter.close()


async def test_reports_come_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_reports, "INTERVAL_SECONDS", 0.001)
    reporting = Reporting()
    reporting.reporter.start()
    await reporting.until(4)
    await reporting.reporter.close()


async def test_a_report_that_cannot_be_written_does_not_end_the_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_reports, "INTERVAL_SECONDS", 0.001)
    reporting = Reporting()
    reporting.world.refused_topic = "llm.lane-reports"
    refused = asyncio.Event()
    original = reporting.context.producer.send

    async def send(record: Any) -> None:
        try:
            await original(record)
        except Exception:
            refused.set()
            raise

    monkeypatch.setattr(reporting.context.producer, "send", send)
    reporting.reporter.start()
    async with asyncio.timeout(10):
        await refused.wait()
    reporting.world.refused_topic = None
    await reporting.until(1)
    await reporting.reporter.close()


async def test_the_durations_of_a_busy_interval_are_bounded() -> None:
    reporting = Reporting()
    for _ in range(MAX_DURATIONS):
        reporting.reporter.count(duration_ms=1.0, answered=True)
    for _ in range(MAX_DURATIONS):
        reporting.reporter.count(duration_ms=1000.0, answered=True)
    await reporting.reporter.close()
    (report,) = reporting.reports()
    assert (report.answered, report.call_ms_p95) == (2 * MAX_DURATIONS, 1.0)
