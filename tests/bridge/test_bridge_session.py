"""The session: the protocol for one client, without I/O."""

import json
from typing import Any

from bridge_support import delta, status_event
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.vocabulary import State
from websocket_bridge.board import Board
from websocket_bridge.closing import Close
from websocket_bridge.frames import Frame, Status
from websocket_bridge.session import MAX_COMMAND_BYTES, MAX_INVALID_COMMANDS_IN_A_ROW, Session, SessionLimits, Turn
from websocket_bridge.transcripts import Transcripts


class Bench:
    """A session with the board and the transcripts that it looks at."""

    def __init__(self, *, allow_all: bool = True, max_subscriptions: int = 10, remembered: int = 1000) -> None:
        self.board = Board(remembered)
        self.transcripts = Transcripts()
        limits = SessionLimits(max_subscriptions=max_subscriptions, allow_all=allow_all)
        self.session = Session(board=self.board, transcripts=self.transcripts, limits=limits)

    def send(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        return parsed(self.session.receive(json.dumps({"id": 1, "type": kind, **fields})))

    def happen(self, request_id: str, version: int) -> list[dict[str, Any]]:
        status = self.board.apply(status_event(request_id, version=version))
        return parsed_frames(self.session.on_status(status)) if status else []

    def stream(self, request_id: str, seq: int, text: str, attempt: int = 1) -> list[dict[str, Any]]:
        run = self.transcripts.apply(delta(request_id, seq, text, attempt=attempt))
        return parsed_frames(self.session.on_delta(run)) if run else []


def parsed_frames(frames: tuple[Frame, ...]) -> list[dict[str, Any]]:
    return [{"close": frame.code} if isinstance(frame, Close) else json.loads(frame.data) for frame in frames]


def parsed(turn: Turn) -> list[dict[str, Any]]:
    return parsed_frames(turn.frames)


def test_a_subscription_is_answered_then_shown_then_followed() -> None:
    """The answer comes first, the snapshot with what is known and what is not second, then changes."""
    bench = Bench()
    bench.happen("a", 1)
    answer, known, end = bench.send("subscribe", request_ids=["a", "b"])
    assert answer == {"id": 1, "type": "subscribed", "all": False, "subscriptions": 2}
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
    bench = Bench(allow_all=False)
    (error,) = bench.send("subscribe", all=True)
    assert (error["type"], error["code"], error["field"]) == ("error", "all_refused", "all")
    assert bench.happen("a", 1) == []


def test_subscriptions_have_a_limit() -> None:
    """A command that would go beyond the limit is refused as a whole."""
    bench = Bench(max_subscriptions=2)
    bench.send("subscribe", request_ids=["a", "a", "b"])
    (error,) = bench.send("subscribe", request_ids=["b", "c"])
    assert error["code"] == "too_many_subscriptions"
    assert bench.session.request_ids == ("a", "b")


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
    assert bench.stream("a", 0, "second", attempt=2)
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
    frame = json.loads(Status.of(event).data)
    assert type(event).model_validate(frame["event"]) == event
    assert "retry_at" not in frame["event"]
