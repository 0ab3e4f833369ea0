"""Lanes and queue places: what is told of the pipeline itself."""

from datetime import timedelta
from typing import Any

from bridge_support import SUBMITTED_AT, Clock, Listener, make_hub, status_event
from hypothesis import given
from hypothesis import strategies as st

from schemas.lane_report import LaneReport
from schemas.vocabulary import BreakerState, FailureCategory, State
from websocket_bridge.lanes import INTERVALS_UNTIL_GONE, Lanes


def report(worker: str = "w1", *, at: float = 0.0, **fields: Any) -> LaneReport:
    return LaneReport(
        provider="openai",
        worker=worker,
        reported_at=SUBMITTED_AT + timedelta(seconds=at),
        **({"interval_ms": 5_000} | fields),
    )


def test_workers_of_a_lane_are_summed() -> None:
    """Counts and rates add up; the breaker is that of the newest report; the wait is backlog by rate."""
    lanes = Lanes()
    lanes.apply(report("w1", backlog=100, in_flight=10, concurrency=10, answered=40, call_ms_p50=100.0), now=0)
    failing = {"breaker": BreakerState.HALF_OPEN, "breaker_reason": FailureCategory.OVERLOADED}
    newest = report("w2", at=1, backlog=60, in_flight=10, concurrency=10, answered=8, failed=2, call_ms_p50=200.0)
    lane = lanes.apply(newest.model_copy(update=failing), now=1)
    assert lane is not None
    assert (lane.workers, lane.backlog, lane.in_flight, lane.concurrency) == (2, 160, 20, 20)
    assert (lane.answered_per_second, lane.failed_per_second) == (9.6, 0.4)
    assert (lane.breaker.state, lane.breaker.reason) == (BreakerState.HALF_OPEN, FailureCategory.OVERLOADED)
    assert lane.call_ms_p50 == 120.0
    assert lane.about_wait_ms == 14_000


def test_a_worker_that_falls_silent_or_stops_is_left_out() -> None:
    """After three of its intervals, or at once with its last report; then nobody works on the lane."""
    lanes = Lanes()
    lanes.apply(report("w1", backlog=5, concurrency=4), now=0)
    lanes.apply(report("w2", backlog=7, concurrency=4), now=10)
    assert lanes.forget_silent(now=5 * INTERVALS_UNTIL_GONE) == []
    (lane,) = lanes.forget_silent(now=5 * INTERVALS_UNTIL_GONE + 1)
    assert (lane.workers, lane.backlog) == (1, 7)
    stopped = lanes.apply(report("w2", at=1, stopping=True), now=17)
    assert stopped is not None
    assert (stopped.workers, stopped.backlog, stopped.about_wait_ms) == (0, 0, None)


@given(st.permutations([report("w1", at=number, backlog=number) for number in range(5)]))
def test_an_older_report_changes_nothing(reports: list[LaneReport]) -> None:
    """In whatever order they come, the newest of a worker counts."""
    lanes = Lanes()
    for one in reports:
        lanes.apply(one, now=0)
    assert lanes.all["openai"].backlog == 4


def test_queue_places_are_told_to_those_who_follow_by_id() -> None:
    """About the place among those known and unknown, and the wait by the lane's rate; again when it changes."""
    hub, _, _ = make_hub()
    for number in range(3):
        hub.on_status(status_event(f"r{number}", State.QUEUED, 1, provider="openai"))
    listener = Listener(hub)
    listener.command("subscribe", request_ids=["r2"])
    listener.read()
    busy = {"in_flight": 4, "concurrency": 4, "answered": 10}
    hub.on_lane_report(report(backlog=4 + 3 + 5, **busy))
    (push,) = listener.read()
    assert (push["type"], push["about_position"], push["about_wait_ms"]) == ("queue", 8, 3_500.0)
    hub.on_lane_report(report(at=1, backlog=12, **busy))
    assert listener.read() == []
    hub.on_status(status_event("r0", State.PROCESSING, 2, provider="openai"))
    hub.on_lane_report(report(at=2, backlog=4 + 2, **busy))
    assert [push["about_position"] for push in listener.read()] == [2]
    late = Listener(hub)
    late.command("subscribe", request_ids=["r2"])
    assert [place["about_position"] for frame in late.read() for place in frame.get("queue", ())] == [2]


def test_an_open_breaker_promises_no_wait() -> None:
    """Nothing gets done: nobody knows how long it takes."""
    lanes = Lanes()
    lane = lanes.apply(report(backlog=5, answered=3, concurrency=1, in_flight=1, breaker=BreakerState.OPEN), now=0)
    assert lane is not None
    assert lane.about_wait_ms is None


def test_lanes_are_pushed_and_silence_is_told() -> None:
    """A snapshot first, then each report, then that a worker has gone."""
    clock = Clock()
    hub, _, _ = make_hub(clock=clock)
    hub.on_lane_report(report(backlog=3))
    listener = Listener(hub)
    listener.command("subscribe", lanes=True)
    *_, snapshot = listener.read()
    assert [lane["backlog"] for lane in snapshot["lanes"]] == [3]
    hub.on_lane_report(report(at=5, backlog=4))
    clock.seconds += 60
    hub.sweep()
    assert [(p["lane"]["backlog"], p["lane"]["workers"]) for p in listener.read() if p["type"] == "lane"] == [
        (4, 1),
        (0, 0),
    ]
