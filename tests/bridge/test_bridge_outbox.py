"""The outbox: bounded, in order, and after compaction a client ends up with the same view."""

import json
from dataclasses import dataclass, field
from typing import Any

from bridge_support import delta, status_event
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.vocabulary import State
from websocket_bridge.board import Board
from websocket_bridge.frames import Answer, DeltaRun, Frame, Push, Snapshot, SnapshotParts, Status, Void, snapshots
from websocket_bridge.outbox import Compaction, Outbox
from websocket_bridge.subjects import Identity
from websocket_bridge.transcripts import Transcripts


@dataclass
class View:
    """What a client knows after some frames, by the rules of docs/websocket.md."""

    versions: dict[str, int] = field(default_factory=dict)
    texts: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    answers: list[bytes] = field(default_factory=list)

    def take(self, frame: Frame) -> None:
        if isinstance(frame, Answer):
            self.answers.append(frame.data)
            return
        fields: dict[str, Any] = json.loads(frame.data)
        for event in [*fields.get("requests", ()), *([fields["event"]] if fields["type"] == "status" else ())]:
            version = max(event["state_version"], self.versions.get(event["request_id"], 0))
            self.versions[event["request_id"]] = version
        for run in fields.get("texts", ()):
            self.texts[run["request_id"]] = (run["attempt"], run["last_seq"] + 1, run["text"])
        if fields["type"] == "delta":
            self._append(fields)
        if fields["type"] == "void":
            self.texts.pop(fields["request_id"], None)

    def _append(self, run: dict[str, Any]) -> None:
        attempt, next_seq, text = self.texts.get(run["request_id"], (0, 0, ""))
        if (run["attempt"], run["seq"]) == (attempt, next_seq):
            self.texts[run["request_id"]] = (attempt, run["last_seq"] + 1, text + run["text"])
        elif (run["attempt"], run["seq"]) > (attempt, next_seq):
            self.texts[run["request_id"]] = (run["attempt"], run["last_seq"] + 1, run["text"])


class World:
    """Requests that move, as the hub would see them."""

    def __init__(self) -> None:
        self._board = Board(100)
        self._transcripts = Transcripts(100)
        self._versions: dict[str, int] = {}
        self._streams: dict[str, tuple[int, int]] = {}

    def frames(self, happening: str, request_id: str) -> list[Frame]:
        if happening == "status":
            self._versions[request_id] = self._versions.get(request_id, 0) + 1
            status = self._board.apply(status_event(request_id, version=self._versions[request_id]))
            return [Push(status)] if status else []
        if happening in {"delta", "attempt"}:
            attempt, seq = self._streams.get(request_id, (1, 0))
            if happening == "attempt":
                attempt, seq = attempt + 1, 0
            self._streams[request_id] = (attempt, seq + 1)
            piece = delta(request_id, seq, f"{request_id}{attempt}.{seq} ", attempt=attempt)
            who = Identity(request_id, "default")
            voided = self._transcripts.supersede(request_id, attempt)
            run = self._transcripts.apply(piece, who)
            voids = [Push(Void(who, voided, attempt))] if voided else []
            return [*voids, Push(run)] if run else []
        if happening == "snapshot":
            known, run = self._board.get(request_id), self._transcripts.get(request_id)
            parts = SnapshotParts(statuses=[known] if known else [], texts=[run] if run else [])
            return [Answer(b"{}"), *snapshots(parts)]
        raise ValueError(happening)


happenings = st.lists(
    st.tuples(st.sampled_from(["status", "delta", "attempt", "snapshot", "read"]), st.sampled_from("ab")), max_size=80
)


@given(happenings=happenings, max_events=st.integers(4, 12))
@example(
    happenings=[("delta", "a")] * 3 + [("snapshot", "a")] + [("delta", "a")] * 6 + [("status", "b")] * 3, max_events=4
)
def test_compaction_changes_nothing_of_what_a_client_ends_up_with(
    happenings: list[tuple[str, str]], max_events: int
) -> None:
    """A client that reads late has the same newest versions, texts and answers as one that reads at once."""
    world, outbox = World(), Outbox(max_events=max_events, max_bytes=1_000_000)
    prompt, late = View(), View()
    for happening, request_id in happenings:
        if happening == "read":
            frame = outbox.take()
            if frame is not None:
                late.take(frame)
            continue
        for frame in world.frames(happening, request_id):
            prompt.take(frame)
            compaction = outbox.put(frame)
            if compaction is not None and not compaction.fits:
                return  # the client is closed, and starts anew with a snapshot
    while (waiting := outbox.take()) is not None:
        late.take(waiting)
    assert late == prompt


@given(happenings=happenings, max_events=st.integers(1, 12), max_bytes=st.integers(200, 4000))
def test_the_outbox_never_holds_more_than_its_bounds(
    happenings: list[tuple[str, str]], max_events: int, max_bytes: int
) -> None:
    """After each put the pushes that wait are within both bounds, or the outbox says that they do not fit."""
    world, outbox = World(), Outbox(max_events=max_events, max_bytes=max_bytes)
    held: list[Frame] = []
    for happening, request_id in happenings:
        for frame in world.frames(happening, request_id) if happening != "read" else []:
            compaction = outbox.put(frame)
            if compaction is not None and not compaction.fits:
                return
            held = [f for f in outbox._frames[outbox._head :] if f.counts]
            assert len(held) <= max_events
            assert sum(len(f.data) for f in held) <= max_bytes


def test_statuses_of_one_request_compact_to_the_newest() -> None:
    """Ten changes of one request in an outbox for four leave the newest, and count what was left out."""
    outbox = Outbox(max_events=4, max_bytes=1_000_000)
    dropped = 0
    for version in range(1, 11):
        compaction = outbox.put(Push(Status.of(status_event("a", version=version))))
        dropped += compaction.statuses_dropped if compaction else 0
    waiting = []
    while (frame := outbox.take()) is not None:
        waiting.append(frame)
    assert waiting[-1].body.version == 10
    assert dropped + len(waiting) == 10


def test_text_of_a_superseded_attempt_is_not_kept_for_a_late_client() -> None:
    """Compaction leaves out what the client would throw away, and joins the rest."""
    outbox, transcripts = Outbox(max_events=4, max_bytes=1_000_000), Transcripts(100)
    pieces = [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    who = Identity("a", "default")
    runs = [transcripts.apply(delta("a", seq, "x", attempt=attempt), who) for attempt, seq in pieces]
    compactions = [outbox.put(Push(run)) for run in runs]
    assert compactions[-1] == Compaction(statuses_dropped=0, deltas_joined=4, fits=True)
    push = outbox.take()
    assert isinstance(push, Push)
    run = push.body
    assert isinstance(run, DeltaRun)
    assert (run.attempt, run.seq, run.last_seq, run.text) == (2, 0, 2, "xxx")


def test_a_client_that_is_lost_does_not_fit() -> None:
    """Changes of as many different requests cannot be compacted: the outbox says so."""
    outbox = Outbox(max_events=4, max_bytes=1_000_000)
    results = [outbox.put(Push(Status.of(status_event(f"r{number}")))) for number in range(5)]
    assert results[:4] == [None] * 4
    assert results[4] is not None
    assert not results[4].fits


def test_answers_and_snapshots_are_owed_until_they_are_taken() -> None:
    """They do not count against the bounds; the next command waits for them."""
    outbox = Outbox(max_events=1, max_bytes=1_000_000)
    status = Status.of(status_event("a"))
    snapshot = Snapshot(SnapshotParts(statuses=(status,)))
    for frame in (Answer(b"{}"), snapshot, snapshot):
        assert outbox.put(frame) is None
    assert outbox.owes_replies
    while outbox.take() is not None:
        pass
    assert not outbox.owes_replies


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(State)), max_size=60), st.integers(2, 12))
def test_a_terminal_state_is_never_left_out(changes: list[tuple[str, State]], max_events: int) -> None:
    """Not for a newer one either, as a redriven request has: it is told, in order, or the client is closed."""
    outbox = Outbox(max_events=max_events, max_bytes=1_000_000)
    ends = []
    for version, (request_id, state) in enumerate(changes, 1):
        if state.is_terminal:
            ends.append((request_id, version))
        compaction = outbox.put(Push(Status.of(status_event(request_id, state, version))))
        if compaction is not None and not compaction.fits:
            return
    told = []
    while isinstance(push := outbox.take(), Push):
        if isinstance(push.body, Status) and push.body.state.is_terminal:
            told.append((push.body.who.request_id, push.body.version))
    assert told == ends


@given(happenings=happenings)
def test_a_status_never_overtakes_the_text_before_it_nor_is_overtaken(happenings: list[tuple[str, str]]) -> None:
    """Of each request, compaction keeps statuses and pieces in their order: who stops at the end has all the text."""
    world, outbox = World(), Outbox(max_events=6, max_bytes=1_000_000)
    order: dict[str, list[tuple[str, int]]] = {}
    for happening, request_id in happenings:
        for frame in world.frames(happening, request_id) if happening in {"status", "delta"} else []:
            assert isinstance(frame, Push)
            body = frame.body
            place = ("status", body.version) if isinstance(body, Status) else ("piece", body.last_seq)
            order.setdefault(request_id, []).append(place)
            compaction = outbox.put(frame)
            if compaction is not None and not compaction.fits:
                return
    last: dict[str, int] = {}
    while isinstance(push := outbox.take(), Push):
        body = push.body
        place = ("status", body.version) if isinstance(body, Status) else ("piece", body.last_seq)
        at = order[body.who.request_id].index(place)
        assert at > last.get(body.who.request_id, -1)
        last[body.who.request_id] = at


def test_joined_deltas_carry_the_token_of_the_last() -> None:
    """A client that resumes from it has all pieces of the run, and everything that stood before it."""
    outbox = Outbox(max_events=3, max_bytes=1_000_000)
    who = Identity("a", "default")
    for seq in range(4):
        outbox.put(Push(DeltaRun(who, 1, seq, seq, f"{seq}"), f"token-{seq}"))
    push = outbox.take()
    assert isinstance(push, Push)
    assert (push.token, json.loads(push.data)["resume"], json.loads(push.data)["text"]) == (
        "token-3",
        "token-3",
        "0123",
    )
