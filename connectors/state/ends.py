"""Which ends are possible from where, asked of `policy.lifecycle`."""

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


class IllegalEndError(ValueError):
    """A request in this state cannot end so."""

    def __init__(self, state: State | None, end: State) -> None:
        super().__init__(f"a request cannot go from {state or 'nothing'} to {end}")
        self.state = state
        self.end = end
