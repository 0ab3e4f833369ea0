"""Lanes and queue places: what is told of the pipeline itself."""

from datetime import timedelta
from typing import Any

from bridge_support import SUBMITTED_AT, Clock, Listener, make_hub, status_event
from hypothesis import given
from hypothesis import strategies as st

from schemas.lane_report import LaneReport
from schemas.vocabulary import BreakerState, FailureCategory, State
from websocket_bridge.board import Board
from websocket_bridge.lane_history import REMEMBERED_SECONDS, STEP_SECONDS
from websocket_bridge.lanes import INTERVALS_UNTIL_GONE, Lanes
from websocket_bridge.queue_places import QueuePlaces


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
    assert lane.about_wait_ms == 14_100  # when 141 calls have ended, its own begins


def test_a_rate_is_a_mean_over_ten_seconds() -> None:
    """A report that a breaker's change brought after 3 ms makes no rate of its own; older reports do not count."""
    lanes = Lanes()
    for second in range(0, 40, 2):
        lanes.apply(report(at=second, interval_ms=2_000, answered=100 if second < 20 else 4), now=second)
    lane = lanes.apply(report(at=38.003, interval_ms=3, failed=5), now=38.003)
    assert lane is not None
    assert (lane.answered_per_second, lane.failed_per_second) == (1.999, 0.5)


def test_latencies_are_those_of_the_calls_that_ended_last() -> None:
    """Where none ended since: also the wait is reckoned by them, for calls may take longer than rates look back."""
    lanes = Lanes()
    busy = {"in_flight": 2, "concurrency": 2, "backlog": 12}
    lanes.apply(report(answered=1, call_ms_p50=30_000.0, call_ms_p95=40_000.0, **busy), now=0)
    for second in range(5, 30, 5):
        lane = lanes.apply(report(at=second, **busy), now=second)
    assert lane is not None
    assert (lane.answered_per_second, lane.call_ms_p50, lane.call_ms_p95) == (0, 30_000, 40_000)
    assert lane.about_wait_ms == 11 / 2 * 30_000


def test_the_last_ten_minutes_of_a_lane_are_kept_for_charts() -> None:
    """Every five seconds, and each change of the breaker; bounded, and times only grow."""
    lanes = Lanes()
    for second in range(0, 1_200, 2):
        breaker = BreakerState.OPEN if second == 1_190 else BreakerState.CLOSED
        lanes.apply(report("w1", at=second, backlog=second, breaker=breaker), now=second)
        lanes.apply(report("w2", at=second - 0.5, backlog=1), now=second)
    (history,) = lanes.history
    assert len(history.at) == REMEMBERED_SECONDS // STEP_SECONDS
    assert history.at == sorted(set(history.at))
    assert history.backlog[-1] > 1_190
    assert history.breaker.count(BreakerState.OPEN) == 1
    assert {len(column) for name, column in history.model_dump().items() if name != "provider"} == {len(history.at)}


def test_reports_of_before_are_history_and_no_sign_of_life() -> None:
    """A bridge that starts reads them back: who was there then counts then, and not now."""
    clock = Clock()
    hub, _, _ = make_hub(clock=clock)
    for age in range(590, 290, -5):
        hub.on_lane_report(report("gone", at=600 - age, backlog=7), age_seconds=age)
    for age in range(270, -1, -5):
        hub.on_lane_report(report("here", at=600 - age, backlog=3), age_seconds=age)
    (lane,) = hub.memory.lanes.all.values()
    (history,) = hub.memory.lanes.history
    assert (lane.workers, lane.backlog) == (1, 3)
    assert set(history.backlog) == {7, 3}
    hub.sweep()
    assert hub.memory.lanes.all["openai"].workers == 1


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


@given(st.permutations([report("w1", at=number, backlog=number, answered=5) for number in (0, 1, 2, 3, 4, 4, 4)]))
def test_an_older_or_repeated_report_changes_nothing(reports: list[LaneReport]) -> None:
    """In whatever order they come, the newest of a worker counts, once: after trouble some are read again."""
    lanes = Lanes()
    for one in reports:
        lanes.apply(one, now=0)
    assert (lanes.all["openai"].backlog, lanes.all["openai"].answered_per_second) == (4, 1)


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
    assert (push["type"], push["about_position"], push["about_wait_ms"]) == ("queue", 8, 4_000.0)
    hub.on_lane_report(report(at=1, backlog=12, **busy))
    assert listener.read() == []
    hub.on_status(status_event("r0", State.PROCESSING, 2, provider="openai"))
    hub.on_lane_report(report(at=2, backlog=4 + 2, **busy))
    assert [push["about_position"] for push in listener.read()] == [2]
    late = Listener(hub)
    late.command("subscribe", request_ids=["r2"])
    assert [place["about_position"] for frame in late.read() for place in frame.get("queue", ())] == [2]


moves = st.lists(
    st.tuples(
        st.sampled_from("abcdefgh"), st.sampled_from([State.QUEUED, State.PROCESSING]), st.sampled_from(["x", "y"])
    ),
    max_size=60,
)


@given(moves=moves, capacity=st.integers(1, 6), backlog=st.integers(0, 20))
def test_places_are_by_the_order_of_queueing_whatever_moves(
    moves: list[tuple[str, State, str]], capacity: int, backlog: int
) -> None:
    """Requests that queue, leave, change lanes and come again: as a list would have it, within the bound."""
    places, board, line = QueuePlaces(capacity), Board(100), list[tuple[str, str]]()
    for version, (request_id, state, provider) in enumerate(moves, 1):
        before = board.get(request_id)
        status = board.apply(status_event(request_id, state, version, provider=provider))
        assert status is not None
        places.apply(before, status)
        line = [entry for entry in line if entry[0] != request_id]
        if state is State.QUEUED:
            if len(line) >= capacity:
                mine = [entry for entry in line if entry[1] == provider]
                line = [entry for entry in line if entry not in mine[:1]]
            if len(line) < capacity:
                line.append((request_id, provider))
    for provider in "xy":
        lane = Lanes().apply(report(backlog=backlog).model_copy(update={"provider": provider}), now=0)
        assert lane is not None
        queued = [request_id for request_id, where in line if where == provider]
        unknown = max(0, backlog - len(queued))
        told = {place.request_id: place.about_position for place in places.refresh(lane, "abcdefgh")}
        assert told == {request_id: unknown + rank for rank, request_id in enumerate(queued, 1)}
        assert places.refresh(lane, "abcdefgh") == []


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
