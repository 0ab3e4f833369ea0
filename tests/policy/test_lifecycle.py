"""The life of a request, as a state machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.lifecycle import IllegalStepError, Standing, Step, advance, possible_steps
from schemas.vocabulary import TERMINAL_STATES, State


@given(st.lists(st.sampled_from(Step), max_size=30))
def test_versions_grow_by_one_and_only_a_redrive_leaves_a_terminal_state(steps: list[Step]) -> None:
    standing: Standing | None = None
    for step in steps:
        allowed = possible_steps(standing)
        if step not in allowed:
            with pytest.raises(IllegalStepError):
                advance(standing, step)
            continue
        assert standing is None or not standing.state.is_terminal or step is Step.REDRIVE
        following = advance(standing, step)
        assert following.version == (standing.version if standing else 0) + 1
        standing = following


@pytest.mark.parametrize("state", sorted(TERMINAL_STATES))
def test_terminal_states_allow_no_step_but_a_redrive_of_what_failed(state: State) -> None:
    allowed = frozenset() if state is State.COMPLETED else {Step.REDRIVE}
    assert possible_steps(Standing(state, 3)) == allowed


def test_a_redrive_begins_another_life_in_higher_versions() -> None:
    assert advance(Standing(State.FAILED, 7), Step.REDRIVE) == Standing(State.QUEUED, 8)


def test_a_failover_goes_back_to_the_queue_at_once_and_a_retry_by_way_of_a_wait() -> None:
    assert advance(Standing(State.PROCESSING, 2), Step.FAIL_OVER) == Standing(State.QUEUED, 3)
    waiting = advance(Standing(State.PROCESSING, 2), Step.RETRY)
    assert waiting == Standing(State.RETRY_SCHEDULED, 3)
    assert advance(waiting, Step.REQUEUE) == Standing(State.QUEUED, 4)
    assert Step.CLAIM not in possible_steps(waiting)


@pytest.mark.parametrize("state", sorted(set(State) - TERMINAL_STATES))
def test_every_live_state_can_expire_and_be_cancelled(state: State) -> None:
    assert {Step.EXPIRE, Step.CANCEL} <= possible_steps(Standing(state, 1))


def test_every_state_can_be_reached() -> None:
    reached: set[State] = set()
    frontier: list[Standing | None] = [None]
    while frontier:
        standing = frontier.pop()
        for step in possible_steps(standing):
            following = advance(standing, step)
            if following.state not in reached:
                reached.add(following.state)
                frontier.append(following)
    assert reached == set(State)


def test_an_illegal_step_says_from_where_and_what() -> None:
    with pytest.raises(IllegalStepError, match="complete is not possible from queued"):
        advance(Standing(State.QUEUED, 1), Step.COMPLETE)
