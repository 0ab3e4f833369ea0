"""The session: the protocol for one client, without I/O."""

import json
from typing import Any

import pytest
from bridge_support import BY_ID, OPERATOR, delta, status_event
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.vocabulary import State
from websocket_bridge.closing import Close
from websocket_bridge.frames import Body, Outgoing, Push, Status
from websocket_bridge.memory import Memory
from websocket_bridge.messages import Scope
from websocket_bridge.session import MAX_COMMAND_BYTES, MAX_INVALID_COMMANDS_IN_A_ROW, Session, SessionLimits, Turn
from websocket_bridge.viewer import Viewer


class Bench:
    """A session with the memory that it looks at."""

    def __init__(
        self, *, viewer: Viewer | None = OPERATOR, max_subscriptions: int = 10, remembered: int = 1000
    ) -> None:
        self.memory = Memory(requests=remembered, replay_bytes=100_000)
        limits = SessionLimits(max_subscriptions=max_subscriptions)
        self.session = Session(memory=self.memory, limits=limits, viewer=viewer)

    def send(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        return parsed(self.session.receive(json.dumps({"id": 1, "type": kind, **fields})))

    def happen(self, request_id: str, version: int, **fields: Any) -> list[dict[str, Any]]:
        known = self.memory.board.get(request_id)
        told = self.memory.on_status(status_event(request_id, version=version, **fields))
        return self._told([told[1], told[0]] if told else [], known)

    def stream(self, request_id: str, seq: int, text: str, attempt: int = 1) -> list[dict[str, Any]]:
        told = self.memory.on_delta(delta(request_id, seq, text, attempt=attempt))
        return self._told([told[1], told[0]] if told else [], self.memory.board.get(request_id))

    def _told(self, bodies: list[Body | None], known: Status | None) -> list[dict[str, Any]]:
        pushes = []
        for body in filter(None, bodies):
            for subject in body.who.subjects:
                options = self.session.followed.get(subject)
                if options is not None and self.session.takes(body, subject, options, known):
                    pushes.append(Push(body))
                    break
        return parsed_frames(tuple(pushes))


def parsed_frames(frames: tuple[Outgoing, ...]) -> list[dict[str, Any]]:
    return [{"close": frame.code} if isinstance(frame, Close) else json.loads(frame.data) for frame in frames]


def parsed(turn: Turn) -> list[dict[str, Any]]:
    return parsed_frames(turn.frames)


def test_a_subscription_is_answered_then_shown_then_followed() -> None:
    """The answer comes first, the snapshot with what is known and what is not second, then changes."""
    bench = Bench()
    bench.happen("a", 1)
    answer, known, end = bench.send("subscribe", request_ids=["a", "b"])
    assert answer == {"id": 1, "type": "subscribed", "subscriptions": 2}
    assert [event["request_id"] for event in known["requests"]] == ["a"]
    assert (known["last"], end["last"], end["unknown"]) == (False, True, ["b"])
    (push,) = bench.happen("b", 1)
    assert push["type"] == "status"
    assert "id" not in push
    assert push["event"]["state"] == "queued"


def test_what_is_not_followed_is_not_told() -> None:
    """A session without a subscription, and one for another request, get nothing."""
    bench = Bench()
    assert bench.happen("a", 1) == []
    bench.send("subscribe", request_ids=["b"])
    assert bench.happen("a", 2) == []
    bench.send("unsubscribe", request_ids=["b"])
    assert bench.happen("b", 1) == []


def test_everything_is_refused_where_it_is_not_allowed() -> None:
    """all=true answers with an error that names the field, and changes nothing."""
    bench = Bench(viewer=BY_ID)
    (error,) = bench.send("subscribe", all=True)
    assert (error["type"], error["code"], error["field"]) == ("error", "forbidden", "all")
    assert bench.happen("a", 1) == []


def test_subscriptions_have_a_limit() -> None:
    """A command that would go beyond the limit is refused as a whole."""
    bench = Bench(max_subscriptions=2)
    bench.send("subscribe", request_ids=["a", "a", "b"])
    (error,) = bench.send("subscribe", request_ids=["b", "c"])
    assert error["code"] == "too_many_subscriptions"
    assert [subject.value for subject in bench.session.followed] == ["a", "b"]


def test_many_invalid_commands_in_a_row_end_the_connection() -> None:
    """The last of them is answered, and closed with 4400; a valid one in between starts the count anew."""
    bench = Bench()
    for _ in range(MAX_INVALID_COMMANDS_IN_A_ROW - 1):
        assert "close" not in parsed(bench.session.receive("nonsense"))[-1]
    bench.send("ping")
    for _ in range(MAX_INVALID_COMMANDS_IN_A_ROW - 1):
        assert "close" not in parsed(bench.session.receive("nonsense"))[-1]
    error, end = parsed(bench.session.receive("nonsense"))
    assert error["code"] == "invalid_json"
    assert end == {"close": 4400}


def test_frames_that_are_no_commands_end_the_connection() -> None:
    """Binary frames close with 1003, too large ones with 1009."""
    bench = Bench()
    assert parsed(bench.session.receive(b"\x00")) == [{"close": 1003}]
    assert parsed(bench.session.receive(" " * (MAX_COMMAND_BYTES + 1))) == [{"close": 1009}]


def test_deltas_are_for_those_who_asked() -> None:
    """Without deltas=true no text is sent; with it, what came before the subscription comes with the snapshot."""
    bench = Bench()
    bench.send("subscribe", request_ids=["a"])
    assert bench.stream("a", 0, "Once ") == []
    assert bench.stream("a", 1, "upon ") == []
    frames = bench.send("subscribe", request_ids=["a"], deltas=True)
    assert [run["text"] for frame in frames for run in frame.get("texts", [])] == ["Once upon "]
    (push,) = bench.stream("a", 2, "a time")
    assert (push["type"], push["seq"], push["last_seq"], push["text"]) == ("delta", 2, 2, "a time")


def test_deltas_of_a_superseded_attempt_are_not_told() -> None:
    """Once a later attempt has begun, what still arrives of the earlier one is dropped."""
    bench = Bench()
    bench.send("subscribe", request_ids=["a"], deltas=True)
    assert bench.stream("a", 0, "first", attempt=1)
    void, piece = bench.stream("a", 0, "second", attempt=2)
    assert (void["type"], void["attempt"], void["superseded_by"]) == ("void", 1, 2)
    assert piece["text"] == "second"
    assert bench.stream("a", 1, "late", attempt=1) == []


happenings = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6)), max_size=60)


@given(happenings=happenings, remembered=st.integers(1, 3))
@example(happenings=[("a", 5), ("b", 1), ("a", 3), ("a", 0)], remembered=1)
def test_a_view_by_id_never_goes_back(happenings: list[tuple[str, int]], remembered: int) -> None:
    """Events in any order, repeated, forgotten by the board in between, and subscribed to again (0): versions
    told only ever grow, and the newest is told."""
    bench = Bench(remembered=remembered)
    told: dict[str, int] = {}

    def take(frames: list[dict[str, Any]]) -> None:
        for frame in frames:
            if frame["type"] == "status":
                event = frame["event"]
                assert event["state_version"] > told.get(event["request_id"], 0)
                told[event["request_id"]] = event["state_version"]
            for event in frame.get("requests", ()):
                assert event["state_version"] >= told.get(event["request_id"], 0)
                told[event["request_id"]] = event["state_version"]

    take(bench.send("subscribe", request_ids=["a", "b", "c"]))
    for request_id, version in happenings:
        if version == 0:
            take(bench.send("subscribe", request_ids=[request_id]))
        else:
            take(bench.happen(request_id, version))
    for request_id, version in happenings:
        assert told.get(request_id, 0) >= version


def test_a_request_that_is_redriven_leaves_its_terminal_state() -> None:
    """A new life has higher versions: it is told as any other change."""
    bench = Bench()
    bench.send("subscribe", request_ids=["a"])
    bench.happen("a", 3, state=State.FAILED)
    (push,) = bench.happen("a", 4, state=State.QUEUED)
    assert push["event"]["state"] == "queued"


def test_a_session_without_a_viewer_can_only_authenticate() -> None:
    """Everything else is refused, and nothing is told."""
    bench = Bench(viewer=None)
    for kind, fields in {
        "subscribe": {"request_ids": ["a"]},
        "unsubscribe": {"request_ids": ["a"]},
        "resume": {"token": "x", "subscriptions": [{"request_ids": ["a"]}]},
    }.items():
        (error,) = bench.send(kind, **fields)
        assert (error["type"], error["code"]) == ("error", "unauthenticated")
    assert bench.happen("a", 1) == []
    turn = bench.session.receive('{"id": 7, "type": "authenticate", "ticket": "t"}')
    assert turn.ticket is not None
    (answer,) = parsed(bench.session.admit(turn.ticket, MIRA))
    assert (answer["id"], answer["type"], answer["viewer"]["user_id"]) == (7, "authenticated", "mira")


MIRA = Viewer(scope=Scope.USER, user_id="mira", tenant_id="press")
DESK = Viewer(scope=Scope.TENANT, user_id="mira", tenant_id="press")
REFUSED_FIELDS = {
    MIRA: ("user_id", "tenant_id", "tenant_id", "all", "dead_letters"),
    DESK: (None, None, "tenant_id", "all", "dead_letters"),
    BY_ID: ("user_id", "tenant_id", "tenant_id", "all", "dead_letters"),
    OPERATOR: (None, None, None, None, None),
}


@pytest.mark.parametrize("viewer", REFUSED_FIELDS, ids=lambda viewer: viewer.scope)
def test_a_selection_outside_of_the_scope_is_refused(viewer: Viewer) -> None:
    """By scope: another user, the own tenant, another tenant, everything, dead letters."""
    selections: list[dict[str, Any]] = [
        {"user_id": "noor"},
        {"tenant_id": "press"},
        {"tenant_id": "other"},
        {"all": True},
        {"dead_letters": True},
    ]
    bench = Bench(viewer=viewer)
    answers = [bench.send("subscribe", **selection)[0] for selection in selections]
    refused = tuple(answer["field"] if answer["type"] == "error" else None for answer in answers)
    assert refused == REFUSED_FIELDS[viewer]
    allowed: list[dict[str, Any]] = [{"request_ids": ["a"]}, {"correlation_id": "c"}, {"lanes": True}]
    for selection in allowed:
        assert bench.send("subscribe", **selection)[0]["type"] == "subscribed"


owners = st.tuples(st.sampled_from(["press", "other"]), st.sampled_from(["mira", "noor", None]))


@given(
    viewer=st.sampled_from([MIRA, DESK]),
    whose=st.dictionaries(st.sampled_from("abcd"), owners, min_size=1),
    deltas=st.booleans(),
    early=st.booleans(),
)
def test_nothing_of_a_request_that_a_viewer_may_not_see_is_ever_told(
    viewer: Viewer, whose: dict[str, tuple[str, str | None]], deltas: bool, early: bool
) -> None:
    """By id, by correlation or by user, known before or not: others' requests do not exist."""
    bench = Bench(viewer=viewer)
    frames: list[dict[str, Any]] = []

    def subscribe() -> None:
        frames.extend(bench.send("subscribe", request_ids=list("abcd"), deltas=deltas))
        frames.extend(bench.send("subscribe", correlation_id="c", deltas=deltas))
        frames.extend(bench.send("subscribe", user_id="mira", deltas=deltas))

    if early:
        subscribe()
    for request_id, (tenant_id, user_id) in whose.items():
        piece = delta(request_id, 0, "secret").model_copy(update={"tenant_id": tenant_id})
        bench.memory.on_delta(piece)
        fields = {"tenant_id": tenant_id, "user_id": user_id, "correlation_id": "c"}
        frames.extend(bench.happen(request_id, 1, **fields))
        frames.extend(bench.stream(request_id, 1, "secret"))
    if not early:
        subscribe()
    text = json.dumps(frames)
    for request_id, (tenant_id, user_id) in whose.items():
        visible = tenant_id == "press" and (viewer is DESK or user_id == "mira")
        told = f'"request_id": "{request_id}"' in text
        assert told == visible


@given(st.lists(st.text() | st.binary(max_size=50), max_size=MAX_INVALID_COMMANDS_IN_A_ROW * 2))
def test_no_message_makes_a_session_raise(messages: list[str | bytes]) -> None:
    """Text, bytes, nonsense: each is answered or ends the connection."""
    bench = Bench()
    for message in messages:
        turn = bench.session.receive(message)
        assert turn.frames
        for frame in turn.frames:
            assert isinstance(frame, Close) or json.loads(frame.data)


def test_a_status_is_encoded_as_the_record_is() -> None:
    """What a client reads in a push is the record of the contract, without the fields that are not set."""
    event = status_event("a", State.FAILED, 3, message='<b>"quoted"</b> \u2028 é')
    frame = json.loads(Push(Status.of(event)).data)
    assert type(event).model_validate(frame["event"]) == event
    assert "retry_at" not in frame["event"]
