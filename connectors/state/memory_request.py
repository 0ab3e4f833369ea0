"""One request as the memory store knows it, and what a step makes of it."""

from dataclasses import dataclass, field

from connectors.state.base import (
    Admitted,
    Arrival,
    Claimed,
    Duplicate,
    Ended,
    FoundTask,
    Known,
    Lease,
    LostCall,
    Moved,
    Place,
    Settled,
    Stale,
    TaskRef,
)
from policy.lifecycle import Standing, Step, advance, possible_steps
from schemas.vocabulary import State


@dataclass(kw_only=True, slots=True)
class Hold:
    """Who holds a lease. `until_ms` is 0 once it was given back."""

    owner: str
    token: str | None
    started_ms: int
    until_ms: int


@dataclass(kw_only=True, slots=True)
class MemoryRequest:
    """The twin of a request's hash in Redis. `attempt` is the number of the running call, or of the next one."""

    standing: Standing
    expires_ms: int = 0
    origin: str | None = None
    size_bytes: int | None = None
    deadline_ms: int = 0
    fence: int | None = None
    attempt: int = 0
    redrives: int = 0
    task_version: int = 0
    moved_from: int = 0
    summary: bytes = b""
    in_doubt: bool = False
    is_cancelled: bool = False
    hold: Hold | None = None
    lost_calls: list[LostCall] = field(default_factory=list)
    outcome: bytes | None = None
    is_outside: bool = False
    """Whether its end came from outside of a lane, and may not be published whole."""
    place: Place | None = None
    called_alone: int = 0
    """The version of the task for which a call is noted that a worker may have made while the store was away."""

    @classmethod
    def of(cls, ended: Ended, known: "MemoryRequest | None", *, next_fence: int) -> "MemoryRequest":
        """What is left of a request whose end is in Kafka."""
        version = max(ended.version, known.standing.version if known else 0)
        request = cls(standing=Standing(ended.state, version), place=ended.place)
        is_same_end = known is not None and known.standing == Standing(ended.state, ended.version)
        if known is not None:
            request.fence, request.deadline_ms = known.fence, known.deadline_ms
            request.origin, request.attempt, request.redrives = known.origin, known.attempt, known.redrives
        if not is_same_end:
            # Ended by another than the last that claimed here: its record and its lease cause nothing more.
            request.fence = next_fence
        return request

    @classmethod
    def found(cls, task: FoundTask, known: "MemoryRequest | None", *, now_ms: int) -> "MemoryRequest":
        """What a task tells that is newer than all that is known."""
        ref, before = task.task, None if known is None or known.state.is_terminal else known
        return cls(
            standing=Standing(task.state, max(known.standing.version + 1 if known else 1, ref.version, now_ms)),
            origin=task.origin,
            size_bytes=ref.size_bytes,
            deadline_ms=max(ref.deadline_ms, now_ms),
            fence=0 if task.was_called or (before is not None and before.fence is not None) else None,
            attempt=ref.attempt + len(task.lost_calls),
            lost_calls=list(task.lost_calls),
            redrives=ref.redrives,
            task_version=ref.version,
            summary=task.summary,
            in_doubt=True,
            is_cancelled=before is not None and before.is_cancelled,
        )

    def learn_from(self, task: FoundTask) -> None:
        """More is known than the task tells, but perhaps not that it was claimed."""
        if self.state is State.QUEUED and task.claimed_version > self.standing.version:
            self.in_doubt = True

    @property
    def state(self) -> State:
        return self.standing.state

    def step(self, step: Step) -> None:
        self.standing = advance(self.standing, step)

    def begins_again_with(self, arrival: Arrival) -> bool:
        """Whether a record is a redriven one that begins another life of this request."""
        is_redriven = arrival.redrive is not None and arrival.redrive.count > self.redrives
        return is_redriven and Step.REDRIVE in possible_steps(self.standing)

    def seen_before(self, arrival: Arrival) -> Admitted | Settled | Duplicate:
        """The answer to a record that begins nothing."""
        if self.origin is None and self.place is not None:
            # What was read back from Kafka does not tell whose record it was: its end is published again, as it stands.
            return self.settled()
        is_waiting = self.state is State.RETRY_SCHEDULED
        if self.fence is not None or self.origin != arrival.origin or is_waiting:
            return Duplicate(self.state)
        if self.state is State.QUEUED:
            return Admitted(self.standing.version, attempt=self.attempt, repeated=True, cancelled=self.is_cancelled)
        return self.settled()

    def is_held_by(self, lease: Lease) -> bool:
        """Whether nobody claimed after this lease, even if it has lapsed."""
        return self.hold is not None and self.hold.until_ms > 0 and self.fence == lease.fence

    def is_free_for(self, lease: Lease, now_ms: int) -> bool:
        """Whether a lease stands that a worker gave to itself, or that the store has lost: nobody has a later one."""
        if self.state.is_terminal or self.standing.version > lease.version:
            return False
        if not lease.is_own:
            return (self.fence or 0) < lease.fence
        return self.state is State.QUEUED or (self.hold is not None and self.hold.until_ms <= now_ms)

    def is_behind(self, task_version: int, redrives: int) -> bool:
        """Whether a task is newer than all that is known: the store has lost what came between.

        A worker that was alone may have moved on what had ended meanwhile: an end gives way to a later life alone.
        """
        return task_version > self.standing.version and (not self.state.is_terminal or redrives > self.redrives)

    def is_beyond(self, task: TaskRef) -> bool:
        """Whether more is known of the request than a task that was found in Kafka tells."""
        if self.is_behind(task.version, task.redrives):
            return False
        is_known = (self.fence or 0) > 0 or not self.in_doubt or task.version <= self.task_version
        return self.state.is_terminal or is_known

    def waits_after(self, task_version: int) -> bool:
        """Whether this task was the last one to be moved on, and nobody has taken up the one that followed."""
        is_waiting = self.state in (State.QUEUED, State.RETRY_SCHEDULED) and self.standing.version == self.task_version
        return is_waiting and self.moved_from == task_version

    def believe(self, state: State, version: int, redrives: int) -> None:
        """Takes a task's word for where the request stands, and forgets what is older."""
        self.redrives = redrives
        if self.state.is_terminal:
            self.is_cancelled, self.outcome, self.is_outside, self.place = False, None, False, None
        self.standing = Standing(state, max(self.standing.version, version))
        self.hold, self.lost_calls, self.in_doubt = None, [], True

    def believe_claimed(self, task: TaskRef) -> None:
        if task.may_have_been_called:  # that its history is missing covers such a call
            self.called_alone = task.version
        self.believe(State.QUEUED, task.version, task.redrives)
        self.task_version, self.moved_from = task.version, 0
        self.attempt = max(self.attempt, task.attempt)

    def lose(self, call: LostCall) -> None:
        self.lost_calls.append(call)
        self.attempt += 1

    def answer_to(self, task: TaskRef) -> Settled | Moved | Stale | None:
        """What there is for a task in place of a lease."""
        if self.state.is_terminal:
            return self.settled()
        if 0 < task.version < self.task_version:
            return self.moved() if self.waits_after(task.version) else Stale()
        return self.moved() if self.state is State.RETRY_SCHEDULED else None

    def take(self, hold: Hold, task: TaskRef, *, fence: int) -> None:
        """Gives the lease to another. Whoever held it has lost a call."""
        reclaimed = self.hold is not None
        if self.hold is not None:
            self.lose(self._running_call(self.hold))
        # Once for each task: its record may be delivered again and again.
        if task.may_have_been_called and self.called_alone != task.version:
            self.called_alone = task.version
            self.lose(LostCall(attempt=self.attempt, owner="unknown", started_ms=hold.started_ms))
        if self.in_doubt and not reclaimed:
            # It may have had another life. Milliseconds of the clock are above any that it was given then.
            self.standing = Standing(self.state, max(self.standing.version, hold.started_ms))
        self.step(Step.RECLAIM if reclaimed else Step.CLAIM)
        self.hold, self.fence = hold, fence

    def take_up(self, lease: Lease, now_ms: int) -> None:
        """A lease that this store has not given, or has lost, becomes known."""
        self.hold = Hold(owner=lease.owner, token=None, started_ms=now_ms, until_ms=now_ms)
        self.standing = Standing(State.PROCESSING, lease.version)
        self.fence, self.attempt = lease.fence, lease.attempt

    def move(self, step: Step, *, task_version: int, next_attempt: int, summary: bytes) -> None:
        """Makes the next task of the request; the one before it is `task_version`."""
        self.step(step)
        self.task_version, self.moved_from = self.standing.version, task_version
        self.attempt, self.summary = next_attempt, summary

    def claimed(self, request_id: str) -> Claimed:
        version = self.standing.version
        return Claimed(
            lease=Lease(
                request_id=request_id,
                fence=self.fence or 0,
                attempt=self.attempt,
                version=version,
                owner=self.hold.owner if self.hold else "",
            ),
            lost_calls=tuple(self.lost_calls),
            history_missing=self.in_doubt,
            cancelled=self.is_cancelled,
        )

    def moved(self) -> Moved:
        return Moved(self.standing.state, self.standing.version, self.summary)

    def known(self, request_id: str, now_ms: int) -> Known:
        return Known(
            request_id=request_id,
            state=self.state,
            version=self.standing.version,
            summary=self.summary,
            held_ms=max(0, self.hold.until_ms - now_ms) if self.hold else 0,
            running=self._running_call(self.hold) if self.hold else None,
            lost_calls=tuple(self.lost_calls),
            outcome=self.outcome,
            in_doubt=self.in_doubt,
            cancelled=self.is_cancelled,
        )

    def settled(self) -> Settled:
        return Settled(self.standing.state, self.standing.version, self.outcome, self.place)

    def _running_call(self, hold: Hold) -> LostCall:
        return LostCall(attempt=self.attempt, owner=hold.owner, started_ms=hold.started_ms)
