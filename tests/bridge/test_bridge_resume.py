"""Coming back: exactly what was missed, from any bridge, or an honest gap."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from bridge_support import SUBMITTED_AT, Clock, HubOptions, Kafka, Listener, delta, make_hub, status_event
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.delta import Delta
from schemas.result import LLMResult
from schemas.status import StatusEvent
from schemas.vocabulary import State
from websocket_bridge.hub import Hub
from websocket_bridge.position import MAX_OFFSET, Place, Position, read_token
from websocket_bridge.recent import Recent, Spot
from websocket_bridge.resuming import PATIENCE_SECONDS

Happening = tuple[str, str, int, int]
"""What was told: kind, request, version or attempt, number of the piece."""


def result_of(request_id: str, version: int) -> LLMResult:
    return LLMResult(
        request_id=request_id,
        status=State.COMPLETED,
        state_version=version,
        submitted_at=SUBMITTED_AT,
        finished_at=SUBMITTED_AT + timedelta(seconds=1),
    )


@dataclass
class Log:
    """The three topics: records by place. One request is always in the same partition."""

    records: dict[Place, list[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, steps: list[tuple[str, str]], partitions: int) -> "Log":
        log = cls({(topic, number): [] for topic in range(3) for number in range(partitions)})
        versions: dict[str, int] = {}
        pieces: dict[str, tuple[int, int]] = {}
        for kind, request_id in steps:
            number = ord(request_id) % partitions
            version = versions.get(request_id, 0)
            if kind == "status":
                versions[request_id] = version + 1
                attempt = pieces.get(request_id, (1, 0))[0]
                event = status_event(request_id, State.PROCESSING, version + 1, attempt=attempt)
                log.records[0, number].append(event)
            elif kind == "repeat" and version:
                log.records[0, number].append(status_event(request_id, State.PROCESSING, version))
            elif kind == "result" and version:
                log.records[2, number].append(result_of(request_id, version))
            elif kind in {"piece", "attempt"}:
                attempt, seq = pieces.get(request_id, (1, 0))
                attempt, seq = (attempt + 1, 0) if kind == "attempt" else (attempt, seq)
                pieces[request_id] = (attempt, seq + 1)
                log.records[1, number].append(delta(request_id, seq, "x", attempt=attempt))
        return log

    @property
    def ends(self) -> dict[Place, int]:
        return {place: len(records) for place, records in self.records.items()}


class Bridge:
    """A hub that reads the log, partition by partition in an order of its own."""

    def __init__(self, log: Log, *, begin: dict[Place, int] | None = None, **limits: Any) -> None:
        self.clock = Clock()
        self.hub, _, _ = make_hub(HubOptions(more=limits), clock=self.clock)
        self._log = log
        self.at = dict.fromkeys(log.records, 0) | (begin or {})
        self.hub.begin(Kafka.EPOCH, self.at)

    def read(self, place: Place) -> bool:
        offset = self.at[place]
        if offset >= len(self._log.records[place]):
            return False
        self.at[place] = offset + 1
        show(self.hub, self._log.records[place][offset], Spot(place, offset))
        return True

    def read_all(self) -> None:
        for place in self.at:
            while self.read(place):
                pass


def show(hub: Hub, record: Any, spot: Spot) -> None:
    match record:
        case StatusEvent():
            hub.on_status(record, spot)
        case Delta():
            hub.on_delta(record, spot)
        case _:
            hub.on_result(record, spot)


def happenings(frames: list[dict[str, Any]]) -> list[Happening]:
    told: list[Happening] = []
    for frame in frames:
        match frame["type"]:
            case "status":
                told.append(("status", frame["event"]["request_id"], frame["event"]["state_version"], 0))
            case "result":
                told.append(("result", frame["result"]["request_id"], frame["result"]["state_version"], 0))
            case "delta":
                told.append(("delta", frame["request_id"], frame["attempt"], frame["seq"]))
    return told


steps = st.lists(
    st.tuples(
        st.sampled_from(["status", "status", "piece", "piece", "attempt", "result", "repeat"]), st.sampled_from("abcd")
    ),
    min_size=1,
    max_size=60,
)
wishes = st.sampled_from(
    [
        [{"all": True}],
        [{"all": True, "deltas": True}],
        [{"request_ids": ["a", "b"], "deltas": True}],
        [{"tenant_id": "default", "deltas": True}, {"request_ids": ["a"]}],
    ]
)


def newest_attempts(log: Log) -> dict[str, int]:
    found: dict[str, int] = {}
    for place, records in log.records.items():
        for record in records:
            if place[0] != 2 and record.attempt:
                found[record.request_id] = max(record.attempt, found.get(record.request_id, 0))
    return found


@given(data=st.data(), steps=steps, partitions=st.integers(1, 2), subscriptions=wishes)
@settings(max_examples=300)
def test_a_client_that_comes_back_to_any_bridge_gets_exactly_what_it_missed(
    data: st.DataObject, steps: list[tuple[str, str]], partitions: int, subscriptions: list[dict[str, Any]]
) -> None:
    """Cut off after any frame, back at a bridge that is behind or ahead and has read in another order: nothing is
    missed and nothing comes twice. (What an attempt's end makes void may be left out by a bridge that knows it.)"""
    log = Log.of(steps, partitions)
    places = list(log.records)
    order = st.lists(st.sampled_from(places), max_size=80)
    first = Bridge(log)
    listener = Listener(first.hub)
    for subscription in subscriptions:
        listener.command("subscribe", **subscription)
    token = listener.read()[-1].get("resume")
    for place in data.draw(order):
        first.read(place)
    frames = listener.read()
    seen = frames[: data.draw(st.integers(0, len(frames)))]
    token = next((frame["resume"] for frame in reversed(seen) if "resume" in frame), token)
    assert token is not None

    second = Bridge(log)
    for place in data.draw(order):
        second.read(place)
    back = Listener(second.hub)
    back.read()
    back.command("resume", token=token, subscriptions=subscriptions)
    second.hub.on_ends(log.ends, looked_up_at=second.clock())
    second.read_all()
    second.hub.flush()
    answer, *rest = back.read()
    assert (answer["type"], answer["recovered"]) == ("resumed", True)
    told = happenings(seen) + happenings(rest)
    assert len(told) == len(set(told))
    oracle = Bridge(log)
    all_along = Listener(oracle.hub)
    for subscription in subscriptions:
        all_along.command("subscribe", **subscription)
    all_along.read()
    oracle.read_all()
    expected = happenings(all_along.read())
    newest = newest_attempts(log)
    missing = {h for h in set(expected) - set(told) if h[0] != "delta" or h[2] == newest[h[1]]}
    assert not missing
    for request_id in "abcd":
        for kind in ("status", "result"):
            versions = [h[2] for h in told if h[:2] == (kind, request_id)]
            assert versions == sorted(versions)
        pieces = [h[2:] for h in told if h[:2] == ("delta", request_id)]
        assert pieces == sorted(pieces)


def resumed(bridge: Bridge, token: str, **subscription: Any) -> list[dict[str, Any]]:
    listener = Listener(bridge.hub)
    listener.read()
    listener.command("resume", token=token, subscriptions=[subscription])
    return listener.read()


def token_at(bridge: Bridge) -> str:
    token = bridge.hub.cursor.token
    assert token is not None
    return token


def busy_log(count: int) -> Log:
    return Log.of([("status", "abcd"[number % 4]) for number in range(count)], 1)


def test_a_gap_is_told_and_a_snapshot_follows() -> None:
    """A token older than the log: the reason, what is known now, and a token to go on from."""
    log = busy_log(400)
    bridge = Bridge(log, replay_bytes=20_000)
    token = token_at(bridge)
    bridge.read_all()
    bridge.hub.resuming.was_tried({(0, 0): 0})
    answer, *rest = resumed(bridge, token, all=True)
    assert (answer["recovered"], answer["gap"], answer["events"]) == (False, "expired", 0)
    versions = {e["request_id"]: e["state_version"] for frame in rest for e in frame.get("requests", ())}
    assert versions == dict.fromkeys("abcd", 100)
    assert rest[-1]["last"]
    assert rest[-1]["resume"] == token_at(bridge)


def test_more_than_one_resume_may_bring_is_a_gap() -> None:
    """The bound is on what is pushed, not on what was read: who follows little is recovered over the same time."""
    log = Log.of([("status", "b")] * 50 + [("status", "a")] * 3, 1)
    bridge = Bridge(log, resume_events=10)
    token = token_at(bridge)
    bridge.read_all()
    assert resumed(bridge, token, all=True)[0]["gap"] == "too_much"
    answer, *rest = resumed(bridge, token, request_ids=["a"])
    assert (answer["recovered"], answer["events"]) == (True, 3)
    assert [h[2] for h in happenings(rest)] == [1, 2, 3]


def test_tokens_of_another_deployment_and_nonsense_are_gaps() -> None:
    """Wrong epoch, unknown partitions, offsets that Kafka has never had, and what is no token at all."""
    bridge = Bridge(busy_log(8))
    bridge.read_all()
    bridge.clock.seconds += 1
    epoch, offsets = Kafka.EPOCH, dict(bridge.at)
    tokens = [
        Position(b"other.", offsets).token,
        Position(epoch, offsets | {(0, 7): 1}).token,
        Position(epoch, offsets | {(0, 0): 1_000}).token,
        "nonsense",
        token_at(bridge)[:-4],
    ]
    for token in tokens:
        listener = Listener(bridge.hub)
        listener.command("resume", token=token, subscriptions=[{"all": True}])
        bridge.clock.seconds += 1
        bridge.hub.on_ends(bridge.at, looked_up_at=bridge.clock())
        _, answer, *_ = listener.read()
        assert (answer["type"], answer["gap"]) == ("resumed", "invalid")


def test_a_bridge_that_cannot_reach_kafka_says_so_after_a_while() -> None:
    """A resume waits for the bridge's start, bounded; other commands wait behind it, and then go on."""
    clock = Clock()
    hub, _, _ = make_hub(clock=clock)
    listener = Listener(hub)
    token = Position(Kafka.EPOCH, {(0, 0): 5}).token
    listener.command("resume", token=token, subscriptions=[{"all": True}])
    assert hub.owes(listener.client)
    clock.seconds += PATIENCE_SECONDS + 1
    hub.sweep()
    assert [frame.get("gap") for frame in listener.read() if frame["type"] == "resumed"] == ["unavailable"]
    assert not hub.owes(listener.client)


def test_where_states_is_not_applied_to_what_was_missed() -> None:
    """A request that left the filter meanwhile is told, or the client would show it for ever; tenants stay apart."""
    log = Log({(topic, 0): [] for topic in range(3)})
    log.records[0, 0] = [
        status_event("a", State.COMPLETED, 3, tenant_id="press"),
        status_event("b", State.COMPLETED, 3, tenant_id="other"),
    ]
    bridge = Bridge(log)
    token = token_at(bridge)
    bridge.read_all()
    where = {"states": ["processing"], "tenant_ids": ["press"]}
    _, *rest = resumed(bridge, token, all=True, where=where)
    assert [h[1] for h in happenings(rest)] == ["a"]


def test_a_quiet_connection_gets_a_newer_token_now_and_then() -> None:
    """Others' events move the position on; one `position` push per interval says so."""
    log = busy_log(8)
    bridge = Bridge(log, position_seconds=20)
    listener = Listener(bridge.hub)
    listener.command("subscribe", request_ids=["quiet"])
    listener.read()
    bridge.read_all()
    for _ in range(3):
        bridge.clock.seconds += 15
        bridge.hub.sweep()
    pushes = listener.read()
    assert [push["type"] for push in pushes] == ["position"]
    assert listener.token == token_at(bridge)


@given(st.integers(0, 12), st.integers(0, 12), st.data())
def test_a_token_holds_its_position(partitions: int, more: int, data: st.DataObject) -> None:
    """Out and in again; as short as its offsets allow."""
    counts = {0: partitions, 1: more}
    places = {(topic, n): data.draw(st.integers(0, MAX_OFFSET)) for topic in counts for n in range(counts[topic])}
    position = Position(b"123456", places)
    found = read_token(position.token)
    assert found is not None
    assert found.epoch == b"123456"
    assert {place: at for place, at in found.offsets.items() if at} == {p: at for p, at in places.items() if at}
    assert len(position.token) <= 20 + len(places) * 14


@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda data: data.hex()))
@example("AQ")
@example("A" * 9_000)
def test_no_text_makes_reading_a_token_raise(text: str) -> None:
    """It is a token, or it is None."""
    found = read_token(text)
    assert found is None or len(found.epoch) == 6


@given(steps=steps, max_bytes=st.integers(1_000, 20_000))
def test_the_log_of_recent_happenings_is_bounded_and_forgets_wholly(
    steps: list[tuple[str, str]], max_bytes: int
) -> None:
    """Its bytes hold, and what was dropped leaves nothing in the index; from its floors on it is complete."""
    log = Log.of(steps, 2)
    bridge = Bridge(log, replay_bytes=max_bytes)
    bridge.read_all()
    recent: Recent = bridge.hub.memory.recent
    assert recent.size_bytes <= max_bytes
    held = {entry.number for entry in recent._entries}
    assert {e.number for entries in recent._by_subject.values() for e in entries} == held
    assert recent.reaches(recent.floors, frozenset(range(3)))
    complete = {entry.number for entry in recent._entries if entry.spot.offset >= recent.floors[entry.spot.place]}
    found = recent.since(recent.floors, list(recent._by_subject))
    assert {entry.number for entry in found} == complete
