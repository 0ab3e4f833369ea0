"""Tells every few seconds how this worker of a lane fares, and at once when the lane's breaker changes."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import quantiles

import structlog

from connectors.kafka.producer import Outgoing
from connectors.tracing import outgoing
from schemas.envelope import cloud_event
from schemas.lane_report import LaneReport
from streams.context import StageContext
from streams.gate import GateSnapshot

log = structlog.get_logger(__name__)

INTERVAL_SECONDS = 2.0
MAX_DURATIONS = 2_000
"""Of the calls of one interval; the percentiles of a busier one are those of its first."""


@dataclass(slots=True)
class _Tally:
    answered: int = 0
    failed: int = 0
    durations_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneSources:
    """Where the figures of a report come from."""

    breaker: Callable[[], GateSnapshot]
    in_flight: Callable[[], int]
    concurrency: int
    waiting: Callable[[], int]
    backlog: Callable[[], int]
    is_away: Callable[[], bool]


class LaneReporter:
    """Sends the reports of one worker of a lane."""

    def __init__(self, context: StageContext, *, provider: str, sources: LaneSources) -> None:
        self._context = context
        self._provider = provider
        self._sources = sources
        self._tally = _Tally()
        self._reported_at = context.now()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._report_forever(), name="lane-reports")

    async def close(self) -> None:
        """Sends a last report, which says that it is the last."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._send(stopping=True)

    def count(self, *, duration_ms: float, answered: bool) -> None:
        """Notes a call that has ended."""
        if answered:
            self._tally.answered += 1
        else:
            self._tally.failed += 1
        if len(self._tally.durations_ms) < MAX_DURATIONS:
            self._tally.durations_ms.append(duration_ms)

    def breaker_changed(self) -> None:
        """The next report is sent now."""
        self._changed.set()

    async def _report_forever(self) -> None:
        while True:
            try:
                await self._send()
            except Exception:
                log.exception("lane_not_reported")
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), INTERVAL_SECONDS)
            except TimeoutError:
                continue

    async def _send(self, *, stopping: bool = False) -> None:
        tally, self._tally = self._tally, _Tally()
        since, now = self._reported_at, self._context.now()
        self._reported_at = now
        breaker = self._sources.breaker()
        p50, p95 = _percentiles(tally.durations_ms)
        report = LaneReport(
            provider=self._provider,
            worker=self._context.worker,
            reported_at=now,
            interval_ms=max(0.0, (now - since).total_seconds() * 1000),
            breaker=breaker.state,
            breaker_since=breaker.since,
            breaker_retry_at=breaker.retry_at,
            breaker_reason=breaker.reason,
            in_flight=self._sources.in_flight(),
            concurrency=self._sources.concurrency,
            waiting=self._sources.waiting(),
            backlog=self._sources.backlog(),
            answered=tally.answered,
            failed=tally.failed,
            call_ms_p50=p50,
            call_ms_p95=p95,
            shared_state_away=self._sources.is_away(),
            stopping=stopping,
        )
        record = Outgoing(
            topic=self._context.settings.topics.lane_reports,
            key=self._provider.encode(),
            value=self._context.codec.encode(report),
            headers=cloud_event(
                type="sluice.LaneReport",
                source=f"/sluice/lane/{self._provider}",
                key=self._provider,
                time=now,
                trace=outgoing(),
            ),
        )
        await self._context.producer.send(record)


def _percentiles(durations_ms: list[float]) -> tuple[float | None, float | None]:
    """The median and the 95th percentile."""
    if len(durations_ms) < 2:
        only = durations_ms[0] if durations_ms else None
        return only, only
    steps = quantiles(durations_ms, n=20, method="inclusive")
    return steps[9], steps[18]
