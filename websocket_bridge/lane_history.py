"""How a lane fared over the last minutes, for the charts of those who come. Bounded. Pure."""

from collections import deque

from websocket_bridge.messages import Lane, LaneHistory

STEP_SECONDS = 5
REMEMBERED_SECONDS = 600


class LanePoints:
    """The numbers of one lane, every five seconds for ten minutes; older ones are forgotten."""

    def __init__(self) -> None:
        self._lanes: deque[Lane] = deque(maxlen=REMEMBERED_SECONDS // STEP_SECONDS)

    def add(self, lane: Lane) -> None:
        """Keeps one of each five seconds, and each change of the breaker. Times only grow."""
        last = self._lanes[-1] if self._lanes else None
        if last is not None:
            later_seconds = (lane.reported_at - last.reported_at).total_seconds()
            is_same = last.breaker.state is lane.breaker.state
            if later_seconds < (STEP_SECONDS if is_same else 0.001):
                return
        self._lanes.append(lane)

    def of(self, provider: str) -> LaneHistory:
        """By column, oldest first."""
        lanes = self._lanes
        return LaneHistory(
            provider=provider,
            at=[round(lane.reported_at.timestamp(), 3) for lane in lanes],
            breaker=[lane.breaker.state for lane in lanes],
            backlog=[lane.backlog for lane in lanes],
            in_flight=[lane.in_flight for lane in lanes],
            answered_per_second=[lane.answered_per_second for lane in lanes],
            failed_per_second=[lane.failed_per_second for lane in lanes],
            call_ms_p50=[lane.call_ms_p50 for lane in lanes],
            call_ms_p95=[lane.call_ms_p95 for lane in lanes],
        )
