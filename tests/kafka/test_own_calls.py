"""What the next worker of a partition is told of calls that the shared state does not know of."""

from hypothesis import given
from hypothesis import strategies as st

from connectors.kafka.own_calls import OFFSETS_AT_ONCE, UNKNOWN, OwnCalls, bound_of

offsets = st.integers(min_value=0, max_value=10 * OFFSETS_AT_ONCE)


@given(called=st.lists(offsets, min_size=1), committed=offsets, written_since=offsets, is_end_known=st.booleans())
def test_who_comes_next_takes_every_called_record_for_one_that_may_have_been_called(
    called: list[int], committed: int, written_since: int, *, is_end_known: bool
) -> None:
    """Of those that are delivered to him: from the committed offset on. What was written since is in no doubt."""
    end = max(called) + 1 + written_since
    ours: OwnCalls[str] = OwnCalls()
    ours.assigned({"p": ""}, {})
    for offset in called:
        ours.recorded("p", ours.carry("p", offset))
        assert ours.is_on_record("p", offset)
    theirs: OwnCalls[str] = OwnCalls()
    theirs.assigned({"p": ours.text("p", committed)}, {"p": end} if is_end_known else {})
    for offset in called:
        assert theirs.may_have_been_called("p", offset) or offset < committed
    assert not theirs.may_have_been_called("p", max(called) + OFFSETS_AT_ONCE)
    assert not (is_end_known and theirs.may_have_been_called("p", end))


def test_nothing_is_on_record_before_kafka_took_it() -> None:
    calls: OwnCalls[str] = OwnCalls()
    calls.assigned({"p": ""}, {})
    bound = calls.carry("p", 7)
    assert not calls.is_on_record("p", 7)
    calls.recorded("p", bound)
    assert calls.is_on_record("p", 7)
    assert not calls.is_on_record("q", 7)


def test_a_bound_is_passed_on_until_the_commits_have_reached_it() -> None:
    """Also by a worker that makes no such call itself, and dies in turn."""
    calls: OwnCalls[str] = OwnCalls()
    calls.assigned({"p": "called-below=200"}, {"p": 250})
    assert calls.text("p", 199) == "called-below=200"
    assert calls.text("p", 200) == ""


def test_a_worker_does_not_doubt_its_own_calls() -> None:
    calls: OwnCalls[str] = OwnCalls()
    calls.assigned({"p": ""}, {})
    calls.recorded("p", calls.carry("p", 7))
    assert not calls.may_have_been_called("p", 7)


def test_what_kafka_did_not_tell_is_in_doubt_up_to_where_the_partition_ended() -> None:
    """And is passed on: a commit that left it out would tell everybody that nothing was called."""
    calls: OwnCalls[str] = OwnCalls()
    calls.assigned({"p": None, "q": None}, {"p": 70})
    assert [calls.may_have_been_called("p", offset) for offset in (69, 70)] == [True, False]
    assert [calls.text("p", committed) for committed in (69, 70)] == ["called-below=70", ""]
    assert calls.may_have_been_called("q", UNKNOWN - 1)
    assert bound_of(calls.text("q", 0)) == UNKNOWN


def test_once_the_state_knows_of_its_own_calls_only_those_of_others_are_passed_on() -> None:
    calls: OwnCalls[str] = OwnCalls()
    calls.assigned({"p": "", "q": "called-below=200"}, {"p": 300, "q": 300})
    for partition in "pq":
        calls.recorded(partition, calls.carry(partition, 310))
    calls.forget()
    assert [calls.text(partition, 100) for partition in "pq"] == ["", "called-below=200"]
    assert not calls.is_on_record("p", 310), "another outage, another call: it has to be put on record again"


@given(text=st.text() | st.integers().map(lambda number: f"called-below={number}"))
def test_the_text_of_another_program_says_nothing(text: str) -> None:
    bound = bound_of(text)
    assert bound == 0 or text in (f"called-below={bound}", text)
    assert 0 <= bound < 10**20
