"""Claims of a worker's own, for as long as Redis is away, so that a lane goes on with what it has.

Each partition of a lane is read by one worker at a time, so a record that was written after this worker got its
partition has not been with anybody else: its claim needs nobody's consent. One that was there before waits for Redis:
another worker may be calling for it, or may have ended it already.

When Redis is back, the ends made meanwhile are noted there, once they are published. Until then they stand in the
results topic, where the control role finds them, should this worker die before; whoever gets its records waits for that
(`EndsOfOthers`). A call that leads to another try waits with that for Redis: nobody could tell it of a move that was
made alone. Of all other calls the lane's offsets tell (`connectors/kafka/own_calls.py`), until Redis knows of them.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from connectors import metrics
from connectors.state.base import (
    Busy,
    Claim,
    Claimed,
    Ended,
    Lease,
    Renewal,
    Rescheduled,
    Settled,
    StateUnavailableError,
    TaskRef,
)
from connectors.state.store import ClaimStore, StateStore
from schemas.vocabulary import State

log = structlog.get_logger(__name__)

AWAY_SECONDS = 3.0
"""For so long Redis may be away before a worker claims by itself: a restart or a failover passes unnoticed."""
MAX_UNNOTED_ENDS = 100_000
MAX_REMEMBERED_ENDS = 100_000
NOTE_SECONDS = 1.0
WAIT_MS = 1_000
ASK_AGAIN_SECONDS = 1.0
"""While it is away, one step in this time asks for it: each other would wait for its timeout."""


@dataclass(kw_only=True, slots=True)
class _OwnEnd:
    """An end that this process has made. `outcome` is kept until it is published."""

    state: State
    version: int
    outcome: bytes | None

    @property
    def settled(self) -> Settled:
        return Settled(self.state, self.version, self.outcome)


class EndsOfOthers:
    """What workers before us have ended by claims of their own, and published, the shared state may not know yet."""

    def __init__(self, until_confirmed: Callable[[], Awaitable[None]]) -> None:
        """`until_confirmed` returns once the shared state knows of every result that stands in Kafka at that time."""
        self._until_confirmed = until_confirmed
        self._looking: asyncio.Task[None] | None = None
        self._begun = 0
        self._done = 0
        self._wanted: dict[str, int] = {}
        """By record, the first look that began after it came."""

    def are_known(self, origin: str) -> bool:
        """Whether it knows of all that was published before this was first asked for a record. Looks are shared."""
        number = self._wanted.setdefault(origin, self._begun + 1)
        if number <= self._done:
            del self._wanted[origin]
            return True
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="ends-of-others")
        return False

    async def _look(self) -> None:
        self._begun += 1
        number = self._begun
        try:
            await self._until_confirmed()
        except Exception:  # Kafka is away, most likely; whoever asks again has it looked for again
            log.exception("ends_of_others_not_known")
            return
        # Those who have not asked since the look before have lost their partition.
        self._wanted = {origin: wanted for origin, wanted in self._wanted.items() if wanted >= self._done}
        self._done = number

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])


class OutageClaims(ClaimStore):
    """The shared state, and in its absence this process."""

    def __init__(
        self,
        shared: StateStore,
        *,
        provider: str,
        known_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`known_seconds` after its return the shared state knows of our calls: all leases were renewed by then."""
        self._shared = shared
        self._wall = wall
        self._clock = clock
        self._known_seconds = known_seconds
        self._claimed = metrics.own_claims.labels(provider)
        self._away_since: float | None = None
        self._ask_at = 0.0
        self._ended: OrderedDict[str, _OwnEnd] = OrderedDict()
        """What this process has ended of late, in case it is delivered again."""
        self._unnoted: dict[str, _OwnEnd] = {}
        """Those of them that the shared state does not know."""
        self._noting: asyncio.Task[None] | None = None
        self._back_at = 0.0
        self._is_on_record = False
        self.on_back: Callable[[], None] = lambda: None
        """Hears that it answers again after claims of our own: until it knows of them, others may end what we call."""
        self.on_known: Callable[[], Awaitable[None]] = _nothing
        """Hears that it knows of all that this process did alone."""

    @property
    def is_away(self) -> bool:
        """Whether claims are this process's own at present."""
        return self._away_since is not None and self._clock() - self._away_since >= AWAY_SECONDS

    @property
    def are_known(self) -> bool:
        """Whether the shared state knows of all that this process did alone."""
        return self._away_since is None and not self._unnoted and self._clock() - self._back_at >= self._known_seconds

    async def leave_word(self, record: Callable[[], Awaitable[bool]]) -> bool:
        """Has a call of our own put on record. False: it must not be made.

        Ends from outside look for that word once the state is back for some seconds: one that comes later is too late.
        """
        self._is_on_record = True
        return await record() and self.is_away

    def start(self) -> None:
        self._noting = asyncio.create_task(self._note_forever(), name="note-own-ends")

    async def close(self) -> None:
        if self._noting is not None:
            self._noting.cancel()
            await asyncio.wait([self._noting])
        await self._note()

    async def claim(
        self, request_id: str, *, owner: str, lease_ms: int, token: str | None = None, task: TaskRef | None = None
    ) -> Claim:
        unnoted = self._unnoted.get(request_id)
        if unnoted is not None and task is not None and unnoted.version > task.version:
            return unnoted.settled
        own = self._own_claim(request_id, task, owner) if self._passes_by() else None
        if own is not None:
            return own
        try:
            claim = await self._shared.claim(request_id, owner=owner, lease_ms=lease_ms, token=token, task=task)
        except StateUnavailableError:
            self._note_away()
            own = self._own_claim(request_id, task, owner)
            if own is None and self.is_away:
                # It has to wait for the store; its slot and its permit need not.
                return Busy(WAIT_MS)
            if own is None:
                raise
            return own
        self._note_back()
        return self._as_published(request_id, claim)

    def _as_published(self, request_id: str, claim: Claim) -> Claim:
        """What this process has published whole need not be looked for in Kafka."""
        if not isinstance(claim, Settled) or claim.place is None:
            return claim
        ended = self._ended.get(request_id)
        is_published = ended is not None and ended.version == claim.version and ended.outcome is None
        return ended.settled if ended is not None and is_published else claim

    def published(self, request_id: str) -> None:
        """All that the end of this request causes is in Kafka: now the shared state may hear of it."""
        ended = self._ended.get(request_id)
        if ended is not None:
            ended.outcome = None

    def _own_claim(self, request_id: str, task: TaskRef | None, owner: str) -> Claim | None:
        if not self.is_away or task is None or len(self._unnoted) >= MAX_UNNOTED_ENDS:
            return None
        ended = self._ended.get(request_id)
        if ended is not None and ended.version > task.version:
            return ended.settled
        # The control role may have ended it already.
        if task.is_called_off or task.deadline_ms <= self._wall() * 1000:
            return None
        if task.is_doubtful:
            return None
        self._claimed.inc()
        lease = Lease(
            request_id=request_id,
            fence=time.time_ns() // 1000,
            attempt=task.attempt,
            version=task.version + 1,
            is_own=True,
            owner=owner,
        )
        return Claimed(lease=lease)

    async def renew(self, leases: Sequence[Lease], *, lease_ms: int) -> Renewal:
        """Those of our own too: once it is back they become known there, or are lost to whoever came before."""
        if self._away_since is not None and all(lease.is_own for lease in leases):
            return Renewal()
        renewal = await self._shared.renew(leases, lease_ms=lease_ms)
        self._note_back()
        return renewal

    async def release(self, lease: Lease, *, called: bool) -> None:
        if not lease.is_own or self._away_since is None:
            await self._shared.release(lease, called=called)

    async def settle(self, lease: Lease, state: State, outcome: bytes) -> Settled | None:
        ended = _OwnEnd(state=state, version=lease.version + 1, outcome=outcome)
        try:
            # Asked each time, also for a lease of our own: it may be back, and the request ended there.
            settled = await self._shared.settle(lease, state, outcome)
        except StateUnavailableError:
            self._note_away()
            if not lease.is_own:
                raise
            self._unnoted[lease.request_id] = ended
            settled = None
        else:
            self._note_back()
        if settled is None:
            self._remember(lease.request_id, ended)
        return settled

    async def reschedule(
        self, lease: Lease, state: State, *, task_version: int, next_attempt: int, summary: bytes
    ) -> Rescheduled:
        try:
            rescheduled = await self._shared.reschedule(
                lease, state, task_version=task_version, next_attempt=next_attempt, summary=summary
            )
        except StateUnavailableError:
            self._note_away()
            raise
        self._note_back()
        return rescheduled

    def _remember(self, request_id: str, ended: _OwnEnd) -> None:
        self._ended[request_id] = ended
        self._ended.move_to_end(request_id)
        if len(self._ended) > MAX_REMEMBERED_ENDS:
            self._ended.popitem(last=False)

    def _passes_by(self) -> bool:
        """Whether this step does without the shared state: it is away, and another step has just asked for it."""
        if not self.is_away:
            return False
        now = self._clock()
        if now >= self._ask_at:
            self._ask_at = now + ASK_AGAIN_SECONDS
            return False
        return True

    def _note_away(self) -> None:
        if self._away_since is None:
            self._away_since = self._clock()
            log.warning("state_away", claims_of_its_own_after_seconds=AWAY_SECONDS)

    def _note_back(self) -> None:
        """It answers: whoever did not get through before asks it again."""
        was_away, self._away_since = self.is_away, None
        if was_away:
            self._back_at = self._clock()
            self.on_back()

    async def _note_forever(self) -> None:
        while True:
            await asyncio.sleep(NOTE_SECONDS)
            try:
                await self._note()
                await self._tell_if_known()
            except Exception:
                log.exception("own_ends_not_noted", count=len(self._unnoted))

    async def _tell_if_known(self) -> None:
        if self._is_on_record and self.are_known:
            self._is_on_record = False
            await self.on_known()

    async def _note(self) -> None:
        ends = [
            Ended(request_id, ended.state, ended.version)
            for request_id, ended in self._unnoted.items()
            if ended.outcome is None
        ]
        if not ends and self._away_since is None:
            return
        try:
            # With nothing to note too: a lane that is idle would else take it for away until its next claims.
            await (self._shared.confirm(ends) if ends else self._shared.outstanding())
        except StateUnavailableError:
            return
        for ended in ends:
            self._unnoted.pop(ended.request_id, None)
        self._note_back()
        if ends:
            log.info("own_ends_noted", count=len(ends))


async def _nothing() -> None:
    """Nobody wants to hear of it."""
