"""Which steps lead to a state, asked of `policy.lifecycle`."""

from functools import cache

from policy.lifecycle import Standing, Step, advance, possible_steps
from schemas.vocabulary import State


@cache
def ending_step(state: State | None, end: State) -> Step:
    """The step that leads from `state` (None: never seen) to the terminal state `end`. Raises `IllegalEndError`."""
    standing = None if state is None else Standing(state, 1)
    for step in possible_steps(standing):
        if end.is_terminal and advance(standing, step).state is end:
            return step
    raise IllegalEndError(state, end)


def moving_step(state: State, following: State) -> Step:
    """The step by which a lane hands a request on: to a later call, or to another lane. Raises `IllegalEndError`."""
    step = {State.RETRY_SCHEDULED: Step.RETRY, State.QUEUED: Step.FAIL_OVER}.get(following)
    if step is None or step not in possible_steps(Standing(state, 1)):
        raise IllegalEndError(state, following)
    return step


class IllegalEndError(ValueError):
    """A request cannot go from this state to that one."""

    def __init__(self, state: State | None, end: State) -> None:
        super().__init__(f"a request cannot go from {state or 'nothing'} to {end}")
        self.state = state
        self.end = end
