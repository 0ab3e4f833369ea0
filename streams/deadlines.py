"""The deadline sweep: a request expires on time wherever it is, in a lane, in a delay topic or behind a breaker.

A request that is being called is left to its lane: the call ends with the deadline, and settles it there.
"""

import time
from collections.abc import Awaitable, Callable
from datetime import datetime

import structlog

from connectors.state.base import Known
from policy.failures import problem
from policy.summary import Summary
from policy.validation import deadline_passed
from schemas.attempt import Problem
from schemas.vocabulary import FailureCategory, State
from streams.confirming import ResultConfirmer
from streams.context import StageContext
from streams.outside_ends import OutsideEnds
from streams.patience import patiently
from streams.restoring import Confirm, Restored, restore

Restore = Callable[[StageContext, Confirm, datetime | None], Awaitable[Restored]]

log = structlog.get_logger(__name__)

MAX_AT_ONCE = 1_000
MAX_LEFT = 20_000
UNPUBLISHED_SECONDS = 10.0
"""An end that is not confirmed for so long: whoever settled it may have died before it was published."""


async def _never() -> bool:
    return False


class DeadlineSweeper:
    """Sweeps the requests whose results go to the partitions that this process has read to their end."""

    def __init__(
        self,
        context: StageContext,
        ends: OutsideEnds,
        confirmer: ResultConfirmer,
        restoring: Restore = restore,
        *,
        steady_since: Callable[[], float | None],
        has_gone_back: Callable[[], Awaitable[bool]] = _never,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`steady_since` tells since when the shared state can be believed, if it can be (`Steadiness.since`).

        `has_gone_back` tells whether it has lost what it knew when this was asked before.
        `clock` gives seconds, and is never set back.
        """
        self._context = context
        self._steady_since = steady_since
        self._has_gone_back = has_gone_back
        self._clock = clock
        self._is_to_restore = False
        self._whole_at: datetime | None = None
        """When the shared state was last seen in the run that it is known to have lost nothing before."""
        self._restore = restoring
        self._ends = ends
        self._confirmer = confirmer
        self._unpublished_since: dict[str, float] = {}
        self._left = 0
        """How many were due at the last sweep and could not be ended: they come first, and may hold up no others."""

    async def sweep(self) -> int:
        """Ends what is overdue, and what was cancelled and is left over. Returns how many that were."""
        await self._restore_what_is_lost()
        # Before the results are read to their end: what lanes ended in an absence is among them.
        since = self._steady_since()
        if since is None:
            return 0
        limit = MAX_AT_ONCE + self._left
        due = await patiently("overdue", lambda: self._context.state.overdue(limit=limit))
        own = await self._confirmer.caught_up() if due else frozenset()
        ids = [request_id for request_id in due if self._confirmer.partition_of(request_id) in own]
        found = await patiently("look", lambda: self._context.state.look(ids)) if ids else []
        await self._publish_again([known for known in found if known.state.is_terminal])
        alive = [known for known in found if not known.state.is_terminal]
        ended = 0
        for state, why in ((State.EXPIRED, _deadline), (State.CANCELLED, _called_off)):
            ended += await self._ends.end_all(
                [known for known in alive if known.cancelled is (state is State.CANCELLED)],
                state,
                why,
                may_end=lambda: self._steady_since() == since,
            )
        self._left = min(MAX_LEFT, len(due) - ended)
        return ended

    async def _restore_what_is_lost(self) -> None:
        now, state = self._context.now(), self._context.state
        if await patiently("has_gone_back", self._has_gone_back):
            self._is_to_restore = True
        is_same_run = await patiently("is_same_run", state.is_same_run)
        if not await patiently("is_restored", state.is_restored) or self._is_to_restore:
            self._is_to_restore, self._whole_at = True, None
        elif is_same_run:
            self._whole_at = now
            return
        log.warning("state_was_lost", action="reading back what is in Kafka", since=self._whole_at)
        restored = await self._restore(self._context, self._confirmer.confirm, self._whole_at)
        self._is_to_restore = False
        log.warning("state_restored", ends=restored.ends, commands=restored.commands, tasks=restored.tasks)

    async def _publish_again(self, ended: list[Known]) -> None:
        now = self._clock()
        unpublished = {known.request_id: known for known in ended if known.outcome}
        self._unpublished_since = {
            request_id: self._unpublished_since.get(request_id, now) for request_id in unpublished
        }
        for request_id, known in unpublished.items():
            if now - self._unpublished_since[request_id] >= UNPUBLISHED_SECONDS:
                log.warning("end_published_again", request_id=request_id, state=known.state)
                await self._ends.publish_again(known)
                self._unpublished_since[request_id] = now


def _deadline(summary: Summary) -> Problem:
    return deadline_passed(summary.deadline_at)


def _called_off(_: Summary) -> Problem:
    return problem(FailureCategory.CANCELLED, "cancelled")
