"""How the lanes fare: the newest report of each worker, summed by provider. Pure: the clock is an argument."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from schemas.lane_report import LaneReport
from schemas.vocabulary import BreakerState
from websocket_bridge.messages import Breaker, Lane

INTERVALS_UNTIL_GONE = 3
MAX_LANES = 200
MAX_WORKERS_PER_LANE = 1_000
PUSH_START, PUSH_END = b'{"type":"lane","lane":', b"}"


@dataclass(frozen=True, slots=True)
class _Heard:
    report: LaneReport
    until: float


class Lanes:
    """`now` is in seconds of a clock that never steps back; what workers write as the time is only shown."""

    def __init__(self) -> None:
        self._workers: dict[str, dict[str, _Heard]] = {}
        self._lanes: dict[str, Lane] = {}

    @property
    def all(self) -> Mapping[str, Lane]:
        """The lanes by provider, as of the last change."""
        return self._lanes

    def apply(self, report: LaneReport, *, now: float) -> Lane | None:
        """The lane after this report, or None for one that is older than the last of its worker, or too many."""
        if report.provider not in self._workers and len(self._workers) >= MAX_LANES:
            return None
        workers = self._workers.setdefault(report.provider, {})
        known = workers.get(report.worker)
        if known is not None and report.reported_at < known.report.reported_at:
            return None
        if known is None and len(workers) >= MAX_WORKERS_PER_LANE:
            return None
        if report.stopping:
            workers.pop(report.worker, None)
        else:
            until = now + INTERVALS_UNTIL_GONE * max(report.interval_ms, 1_000) / 1000
            workers[report.worker] = _Heard(report, until)
        return self._sum(report.provider, report)

    def forget_silent(self, *, now: float) -> list[Lane]:
        """Leaves out workers that were not heard of for three intervals. Returns the lanes that changed by it."""
        changed = []
        for provider, workers in self._workers.items():
            silent = [worker for worker, heard in workers.items() if heard.until < now]
            newest = max((heard.report for heard in workers.values()), key=_reported_at, default=None)
            for worker in silent:
                del workers[worker]
            if silent and newest is not None:
                changed.append(self._sum(provider, newest))
        return changed

    def _sum(self, provider: str, newest: LaneReport) -> Lane:
        reports = [heard.report for heard in self._workers[provider].values()]
        breaker = max((*reports, newest), key=_reported_at)
        answered = sum(_per_second(report.answered, report) for report in reports)
        failed = sum(_per_second(report.failed, report) for report in reports)
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
            call_ms_p50=_weighted(reports, "call_ms_p50"),
            call_ms_p95=max((report.call_ms_p95 for report in reports if report.call_ms_p95 is not None), default=None),
            about_wait_ms=None,
            shared_state_away=any(report.shared_state_away for report in reports),
            reported_at=newest.reported_at,
        )
        lane = lane.model_copy(update={"about_wait_ms": about_wait_ms(lane, backlog - lane.in_flight)})
        self._lanes[provider] = lane
        return lane


def about_wait_ms(lane: Lane, records_before: int) -> float | None:
    """About how long a request waits that has so many before it. None: the lane gets nothing done now."""
    if lane.workers == 0 or lane.breaker.state is BreakerState.OPEN:
        return None
    free = lane.concurrency - lane.in_flight
    if records_before < free:
        return 0.0
    rate = lane.answered_per_second + lane.failed_per_second
    return round(records_before / rate * 1000) * 1.0 if rate > 0 else None


def encoded(lane: Lane) -> bytes:
    """The lane as JSON."""
    return lane.model_dump_json(exclude_none=True).encode()


def _reported_at(report: LaneReport) -> datetime:
    return report.reported_at


def _per_second(count: int, report: LaneReport) -> float:
    return count * 1000 / report.interval_ms if report.interval_ms > 0 else 0.0


def _weighted(reports: list[LaneReport], name: str) -> float | None:
    """The mean of the workers' medians, by how many calls each has made: about the median of all."""
    known = [(getattr(report, name), report.answered + report.failed) for report in reports]
    pairs = [(value, max(calls, 1)) for value, calls in known if value is not None]
    calls = sum(calls for _, calls in pairs)
    return round(sum(value * weight for value, weight in pairs) / calls, 3) if calls else None
