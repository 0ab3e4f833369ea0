"""What the next worker of a partition is told of calls that the shared state does not know of."""

from hypothesis import given
from hypothesis import strategies as st

from connectors.kafka.own_calls import OFFSETS_AT_ONCE, UNKNOWN, OwnCalls, bound_of

offsets = st.integers(min_value=0, max_value=10 * OFFSETS_AT_ONCE)


@given(called=st.lists(offsets, min_size=1), committed=offsets)
def test_who_comes_next_takes_every_called_record_for_one_that_may_have_been_called(
    called: list[int], committed: int
) -> None:
    """Of those that are delivered to him: from the committed offset on."""
    ours: OwnCalls[str] = OwnCalls()
    ours.assigned({"p": ""})
    for offset in called:
        ours.recorded("p", ours.carry("p", offset))
        assert ours.is_on_record("p", offset)
    theirs: OwnCalls[str] = OwnCalls()
    theirs.assigned({"p": ours.text("p", committed)})
    for offset in called:
        assert theirs.may_have_been_called("p", offset) or offset < committed
    assert not theirs.may_have_been_called("p", max(called) + OFFSETS_AT_ONCE)


def test_nothing_is_on_record_before_kafka_took_it() -> None:
    calls: OwnCalls[str] = OwnCalls()
    calls.assigned({"p": ""})
    bound = calls.carry("p", 7)
    assert not calls.is_on_record("p", 7)
    calls.recorded("p", bound)
    assert calls.is_on_record("p", 7)
    assert not calls.is_on_record("q", 7)


def test_a_bound_is_passed_on_until_the_commits_have_reached_it() -> None:
    """Also by a worker that makes no such call itself, and dies in turn."""
    calls: OwnCalls[str] = OwnCalls()
    calls.assigned({"p": "called-below=200"})
    assert calls.text("p", 199) == "called-below=200"
    assert calls.text("p", 200) == ""


def test_a_worker_does_not_doubt_its_own_calls() -> None:
    calls: OwnCalls[str] = OwnCalls()
    calls.assigned({"p": ""})
    calls.recorded("p", calls.carry("p", 7))
    assert not calls.may_have_been_called("p", 7)


def test_what_kafka_did_not_tell_is_in_doubt_and_is_not_passed_on() -> None:
    calls: OwnCalls[str] = OwnCalls()
    calls.assigned({"p": None})
    assert calls.may_have_been_called("p", UNKNOWN - 1)
    assert calls.text("p", 0) == ""


@given(text=st.text() | st.integers().map(lambda number: f"called-below={number}"))
def test_the_text_of_another_program_says_nothing(text: str) -> None:
    bound = bound_of(text)
    assert bound == 0 or text in (f"called-below={bound}", text)
    assert 0 <= bound < 10**20
