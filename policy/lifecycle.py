"""The life of a request: one transition function over the states of `schemas.vocabulary.State`."""

from dataclasses import dataclass
from enum import StrEnum, auto

from schemas.vocabulary import State


class Step(StrEnum):
    """What can happen to a request."""

    ADMIT = auto()
    REJECT = auto()
    CLAIM = auto()
    RECLAIM = auto()  # the lease of an earlier claim ended without an outcome
    RELEASE = auto()  # claimed, and given back before the provider was called
    RETRY = auto()
    REQUEUE = auto()
    FAIL_OVER = auto()  # a call failed, and another provider's lane goes on at once
    REDRIVE = auto()  # sent again from the dead letters: another life under the same id
    COMPLETE = auto()
    FAIL = auto()
    EXPIRE = auto()
    CANCEL = auto()


class IllegalStepError(Exception):
    """A step that the present state does not allow."""

    def __init__(self, state: State | None, step: Step) -> None:
        super().__init__(f"{step} is not possible from {state or 'nothing'}")
        self.state = state
        self.step = step


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a request stands. `version` counts the changes of its state, from 1."""

    state: State
    version: int


_NEXT: dict[tuple[State | None, Step], State] = {
    (None, Step.ADMIT): State.QUEUED,
    (None, Step.REJECT): State.REJECTED,
    (None, Step.EXPIRE): State.EXPIRED,
    (State.QUEUED, Step.CLAIM): State.PROCESSING,
    (State.PROCESSING, Step.RECLAIM): State.PROCESSING,
    (State.PROCESSING, Step.RELEASE): State.QUEUED,
    (State.PROCESSING, Step.RETRY): State.RETRY_SCHEDULED,
    (State.RETRY_SCHEDULED, Step.REQUEUE): State.QUEUED,
    (State.PROCESSING, Step.FAIL_OVER): State.QUEUED,
    (State.PROCESSING, Step.COMPLETE): State.COMPLETED,
    (State.PROCESSING, Step.FAIL): State.FAILED,
    **{
        (live, step): end
        for live in (State.QUEUED, State.PROCESSING, State.RETRY_SCHEDULED)
        for step, end in ((Step.EXPIRE, State.EXPIRED), (Step.CANCEL, State.CANCELLED))
    },
    **{(ended, Step.REDRIVE): State.QUEUED for ended in (State.FAILED, State.EXPIRED, State.CANCELLED, State.REJECTED)},
}


def advance(standing: Standing | None, step: Step) -> Standing:
    """The standing after this step. None stands for a request that was never seen.

    Raises `IllegalStepError` where the step is not possible. Only a redrive leaves a terminal state, and none that
    was paid for: COMPLETED stays.
    """
    state = standing.state if standing else None
    following = _NEXT.get((state, step))
    if following is None:
        raise IllegalStepError(state, step)
    return Standing(following, (standing.version if standing else 0) + 1)


def possible_steps(standing: Standing | None) -> frozenset[Step]:
    """The steps that `advance` would accept."""
    state = standing.state if standing else None
    return frozenset(step for at, step in _NEXT if at == state)
