"""How the lanes fare: the newest reports of each worker, summed by provider. Pure: the clock is an argument."""

from collections import deque
from collections.abc import Mapping
from datetime import datetime

from schemas.lane_report import LaneReport
from schemas.vocabulary import BreakerState
from websocket_bridge.lane_history import LanePoints
from websocket_bridge.messages import Breaker, Lane, LaneHistory

INTERVALS_UNTIL_GONE = 3
RATE_SECONDS = 10
"""Rates are means over so long: a report may be of some milliseconds, and between two calls nothing ends."""
MAX_LANES = 200
MAX_WORKERS_PER_LANE = 1_000
PUSH_START, PUSH_END = b'{"type":"lane","lane":', b"}"


class _Worker:
    """What was heard of a worker: its newest report, counts of the last seconds, its last known latencies."""

    __slots__ = ("_interval_ms", "_recent", "answered", "call_ms_p50", "call_ms_p95", "failed", "report", "until")

    def __init__(self, report: LaneReport) -> None:
        self.report = report
        self.until = 0.0
        self.answered = self.failed = 0
        self.call_ms_p50: float | None = None
        self.call_ms_p95: float | None = None
        self._interval_ms = 0.0
        self._recent: deque[LaneReport] = deque()

    def hear(self, report: LaneReport, *, until: float) -> None:
        self.report, self.until = report, until
        if report.call_ms_p50 is not None:
            self.call_ms_p50, self.call_ms_p95 = report.call_ms_p50, report.call_ms_p95
        self._recent.append(report)
        self._count(report, 1)
        while len(self._recent) > 1 and self._interval_ms - self._recent[0].interval_ms >= RATE_SECONDS * 1000:
            self._count(self._recent.popleft(), -1)

    def per_second(self, count: int) -> float:
        return count * 1000 / self._interval_ms if self._interval_ms > 0 else 0.0

    def _count(self, report: LaneReport, sign: int) -> None:
        self.answered += sign * report.answered
        self.failed += sign * report.failed
        self._interval_ms += sign * report.interval_ms


class Lanes:
    """`now` is in seconds of a clock that never steps back; what workers write as the time is only shown."""

    def __init__(self) -> None:
        self._workers: dict[str, dict[str, _Worker]] = {}
        self._lanes: dict[str, Lane] = {}
        self._points: dict[str, LanePoints] = {}

    @property
    def all(self) -> Mapping[str, Lane]:
        """The lanes by provider, as of the last change."""
        return self._lanes

    @property
    def history(self) -> list[LaneHistory]:
        """Of each lane the last minutes."""
        return [points.of(provider) for provider, points in self._points.items()]

    def apply(self, report: LaneReport, *, now: float) -> Lane | None:
        """The lane after this report, or None for one that is no newer than the last of its worker, or too many."""
        if report.provider not in self._workers and len(self._workers) >= MAX_LANES:
            return None
        workers = self._workers.setdefault(report.provider, {})
        known = workers.get(report.worker)
        if known is not None and report.reported_at <= known.report.reported_at:
            return None
        if known is None and len(workers) >= MAX_WORKERS_PER_LANE:
            return None
        if report.stopping:
            workers.pop(report.worker, None)
        else:
            worker = known or workers.setdefault(report.worker, _Worker(report))
            worker.hear(report, until=now + INTERVALS_UNTIL_GONE * max(report.interval_ms, 1_000) / 1000)
        return self._sum(report.provider, report, now=now)

    def forget_silent(self, *, now: float) -> list[Lane]:
        """Leaves out workers that were not heard of for three intervals. Returns the lanes that changed by it."""
        changed = []
        for provider, workers in self._workers.items():
            silent = [worker for worker, heard in workers.items() if heard.until < now]
            newest = max((heard.report for heard in workers.values()), key=_reported_at, default=None)
            for worker in silent:
                del workers[worker]
            if silent and newest is not None:
                changed.append(self._sum(provider, newest, now=now))
        return changed

    def _sum(self, provider: str, newest: LaneReport, *, now: float) -> Lane:
        workers = [worker for worker in self._workers[provider].values() if worker.until >= now]
        reports = [worker.report for worker in workers]
        breaker = max((*reports, newest), key=_reported_at)
        answered = sum(worker.per_second(worker.answered) for worker in workers)
        failed = sum(worker.per_second(worker.failed) for worker in workers)
        backlog = sum(report.backlog for report in reports)
        lane = Lane(
            provider=provider,
            workers=len(reports),
            breaker=Breaker(
                state=breaker.breaker,
                since=breaker.breaker_since,
                retry_at=breaker.breaker_retry_at,
                reason=breaker.breaker_reason,
            ),
            in_flight=sum(report.in_flight for report in reports),
            concurrency=sum(report.concurrency for report in reports),
            waiting=sum(report.waiting for report in reports),
            backlog=backlog,
            answered_per_second=round(answered, 3),
            failed_per_second=round(failed, 3),
            call_ms_p50=_median(workers),
            call_ms_p95=max((worker.call_ms_p95 for worker in workers if worker.call_ms_p95 is not None), default=None),
            about_wait_ms=None,
            shared_state_away=any(report.shared_state_away for report in reports),
            reported_at=newest.reported_at,
        )
        lane = lane.model_copy(update={"about_wait_ms": about_wait_ms(lane, backlog - lane.in_flight)})
        self._lanes[provider] = lane
        self._points.setdefault(provider, LanePoints()).add(lane)
        return lane


def about_wait_ms(lane: Lane, records_before: int) -> float | None:
    """About how long a request waits that has so many before it. None: the lane gets nothing done now."""
    if lane.workers == 0 or lane.breaker.state is BreakerState.OPEN:
        return None
    free = lane.concurrency - lane.in_flight
    if records_before < free:
        return 0.0
    rate = lane.answered_per_second + lane.failed_per_second
    if rate == 0 and lane.call_ms_p50:  # calls take longer than rates are reckoned over
        rate = lane.in_flight * 1000 / lane.call_ms_p50
    calls_to_end = records_before - free + 1  # each makes room for one
    return round(calls_to_end / rate * 1000) * 1.0 if rate > 0 else None


def encoded(lane: Lane) -> bytes:
    """The lane as JSON."""
    return lane.model_dump_json(exclude_none=True).encode()


def _reported_at(report: LaneReport) -> datetime:
    return report.reported_at


def _median(workers: list[_Worker]) -> float | None:
    """The mean of the workers' medians, by how many calls each has made: about the median of all."""
    pairs = [
        (each.call_ms_p50, max(each.answered + each.failed, 1)) for each in workers if each.call_ms_p50 is not None
    ]
    calls = sum(weight for _, weight in pairs)
    return round(sum(value * weight for value, weight in pairs) / calls, 3) if calls else None
