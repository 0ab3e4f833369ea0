"""What the bridge remembers: the board, the transcripts, and how far it is behind."""

from bridge_support import delta, status_event
from hypothesis import given
from hypothesis import strategies as st

from schemas.vocabulary import State
from websocket_bridge.board import Board
from websocket_bridge.progress import Progress
from websocket_bridge.subjects import Identity
from websocket_bridge.transcripts import MAX_TRANSCRIPT_BYTES, Transcripts

WHO = Identity("a", "default")

changes = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(State), st.integers(1, 8)), max_size=80)


@given(changes)
def test_the_newest_version_wins_in_any_order(events: list[tuple[str, State, int]]) -> None:
    """Of each request the board holds the highest version that was seen, as it was seen first."""
    board = Board(100)
    expected: dict[str, tuple[int, State]] = {}
    for request_id, state, version in events:
        applied = board.apply(status_event(request_id, state, version))
        is_newer = version > expected.get(request_id, (0, state))[0]
        assert (applied is not None) == is_newer
        if is_newer:
            expected[request_id] = (version, state)
    assert {s.who.request_id: (s.version, s.state) for s in board.newest_first()} == expected


@given(changes, st.integers(1, 4))
def test_the_board_is_bounded_and_its_counters_add_up(events: list[tuple[str, State, int]], capacity: int) -> None:
    """Never more than its capacity; the counters are those of the requests that it holds."""
    board = Board(capacity)
    for request_id, state, version in events:
        board.apply(status_event(request_id, state, version))
        held = list(board.newest_first())
        assert len(held) <= capacity
        assert dict(board.counts) == {state: sum(s.state is state for s in held) for state in State}


def test_the_request_that_changed_longest_ago_is_forgotten() -> None:
    """A change moves a request to the front, and a repeat does not."""
    board = Board(2)
    board.apply(status_event("a", version=1))
    board.apply(status_event("b", version=1))
    board.apply(status_event("a", version=2))
    board.apply(status_event("b", version=1))
    board.apply(status_event("c", version=1))
    assert [status.who.request_id for status in board.newest_first()] == ["c", "a"]
    assert board.get("b") is None


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 5)), max_size=40))
def test_a_transcript_is_one_attempt_without_holes(pieces: list[tuple[int, int]]) -> None:
    """Whatever order pieces come in, the text is that of the newest attempt, from `seq` to `last_seq`, gap-free."""
    transcripts = Transcripts(100)
    for attempt, seq in pieces:
        transcripts.apply(delta("a", seq, f"<{attempt}.{seq}>", attempt=attempt), WHO)
    run = transcripts.get("a")
    if run is not None:
        assert run.attempt == max(attempt for attempt, _ in pieces)
        assert run.text == "".join(f"<{run.attempt}.{seq}>" for seq in range(run.seq, run.last_seq + 1))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.text(max_size=300)), max_size=60), st.integers(500, 3000))
def test_transcripts_stay_within_their_bytes(pieces: list[tuple[str, str]], max_bytes: int) -> None:
    """However much text arrives, the bound holds, joined or not; looking at them changes nothing of that."""
    transcripts = Transcripts(100, max_bytes)
    for seq, (request_id, text) in enumerate(pieces):
        transcripts.apply(delta(request_id, seq, text), WHO)
        assert 0 <= transcripts.size_bytes <= max_bytes
        transcripts.get(request_id)
        assert sum(len(run.text.encode()) for run in transcripts.all()) <= transcripts.size_bytes


def test_transcripts_are_of_so_many_requests_as_the_board_holds() -> None:
    """However short they are: the one that grew longest ago goes, also where an attempt was only begun."""
    transcripts = Transcripts(2)
    for request_id in ("a", "b"):
        transcripts.apply(delta(request_id, 0, "one"), WHO)
    transcripts.apply(delta("a", 1, "two"), WHO)
    transcripts.apply(delta("c", 0, "one"), WHO)
    assert transcripts.get("b") is None
    assert [run.text for run in transcripts.all()] == ["onetwo", "one"]
    transcripts.supersede("a", 2)
    transcripts.apply(delta("d", 0, "one"), WHO)
    assert transcripts.get("c") is None


def test_a_transcript_that_outgrows_its_bound_begins_anew() -> None:
    """One endless answer cannot push out all others: its beginning is dropped, and `seq` says so."""
    transcripts = Transcripts(100)
    half = "x" * (MAX_TRANSCRIPT_BYTES // 2)
    for seq in range(3):
        assert transcripts.apply(delta("a", seq, half), WHO) is not None
    run = transcripts.get("a")
    assert run is not None
    assert (run.seq, run.last_seq) == (2, 2)


def test_progress_is_behind_until_the_ends_it_aims_at_are_passed() -> None:
    """Lag counts from the moment the ends were looked up; a steady lag cannot hide behind newer ends."""
    progress = Progress({"p0": 0, "p1": 5})
    assert not progress.is_caught_up
    progress.aim({"p0": 10, "p1": 5}, now_seconds=100.0)
    assert (progress.is_caught_up, progress.lag_seconds(now_seconds=103.0)) == (False, 3.0)
    progress.advance("p0", 9)
    progress.aim({"p0": 50, "p1": 5}, now_seconds=110.0)
    assert progress.lag_seconds(now_seconds=111.0) == 11.0
    progress.advance("p0", 10)
    assert (progress.is_caught_up, progress.lag_seconds(now_seconds=112.0)) == (True, 0.0)
    assert progress.positions == {"p0": 10, "p1": 5}
