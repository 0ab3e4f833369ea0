"""Any order of steps: the same answers in memory and in Redis, one end a life, exact counts, growing versions."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from connectors.settings import RedisSettings
from connectors.state.base import (
    FAR_FUTURE_MS,
    Admitted,
    Arrival,
    Busy,
    Cancellation,
    Claimed,
    Ended,
    Known,
    Lease,
    Limits,
    LostCall,
    Moved,
    TaskRef,
)
from connectors.state.ends import ending_step
from policy.lifecycle import Standing, Step, possible_steps
from schemas.dead_letter_headers import Redrive
from schemas.vocabulary import State
from tests.state.worlds import MemoryWorld, RedisWorld, World

T = TypeVar("T")
Pair = tuple[T, T]

MINUTE_MS = 60_000
LEASE_MS = 10 * MINUTE_MS
LIMITS = Limits(max_requests=6, max_bytes=1_000, high_watermark=0.8, low_watermark=0.4)
CLOCK_VERSIONS = 1_000_000_000
"""Versions above this are those of requests in doubt: from the store's clock."""

ID_LIST = [f"r{number}" for number in range(4)]
IDS = st.sampled_from(ID_LIST)
OWNERS = st.sampled_from(["a", "b"])
ORIGINS = st.sampled_from(["first-record", "second-record"])
SIZES = st.integers(0, 300)
DEADLINES = st.sampled_from([25 * MINUTE_MS, 6_000 * MINUTE_MS])
TENANTS = st.sampled_from(["acme", "other"])
ENDS = st.sampled_from([State.COMPLETED, State.FAILED, State.EXPIRED, State.CANCELLED])


@dataclass(frozen=True)
class Task:
    """A task as Kafka has it. Its version may differ between the two stores, where it came from their clocks."""

    request_id: str
    versions: Pair[int]
    attempt: int
    size_bytes: int
    deadline_at: int


def alike(reply: Any) -> Any:
    """What two stores must agree on: not fences, times, or versions that came from a clock."""
    match reply:
        case Lease():
            return (reply.request_id, reply.attempt, alike_version(reply.version), reply.is_own)
        case LostCall():
            return (reply.attempt, reply.owner)
        case Busy():
            return reply.retry_after_ms > 0
        case list() | tuple():
            return [alike(part) for part in reply]
        case bytes() | str() | int() | None:
            return reply
    fields = {name: getattr(reply, name) for name in reply.__slots__}
    return (
        type(reply),
        {name: value > 0 for name, value in fields.items() if name == "held_ms"},
        {name: alike_version(value) for name, value in fields.items() if name == "version"},
        {name: alike(value) for name, value in fields.items() if name not in ("held_ms", "version")},
    )


def alike_version(version: int) -> int:
    return min(version, CLOCK_VERSIONS)


class TwinMachine(RuleBasedStateMachine):
    """Makes each step in two stores, sometimes twice as after a lost reply, and keeps account of what must hold."""

    tasks = Bundle("tasks")
    leases = Bundle("leases")
    sightings = Bundle("sightings")

    def __init__(self, runner: asyncio.Runner, world: World) -> None:
        super().__init__()
        self.runner = runner
        self.worlds: Pair[World] = (MemoryWorld(), world)
        self.began_ms = tuple(world.now_ms() for world in self.worlds)
        self.passed_ms = 0
        self.moment = 0
        self.names = 0
        self.sizes: dict[str, int] = {}
        self.counted: dict[str, int] = {}
        self.before: dict[str, Known] = {}
        self.fences: Pair[dict[str, int]] = ({}, {})
        self.winners: dict[str, object] = {}
        self.begun_again: set[str] = set()
        """Requests that the step just made may have brought into another life."""

    def both(self, step: Callable[[int, World], Coroutine[Any, Any, T]], *, twice: bool = False) -> Pair[T]:
        """The replies of both stores, which are alike; so are the replies to the same step again."""

        async def make() -> tuple[T, T]:
            first, second = [await step(index, world) for index, world in enumerate(self.worlds)]
            return first, second

        self.names += 1
        replies = self.runner.run(make())
        assert alike(replies[0]) == alike(replies[1])
        if twice:
            again = self.runner.run(make())
            assert [as_first(reply) for reply in again] == [as_first(reply) for reply in replies]
        return replies

    def deadline_ms(self, world: World, deadline_at: int) -> int:
        return world.now_ms() + deadline_at - self.passed_ms

    # ---- the door

    @rule(
        target=tasks, request_id=IDS, origin=ORIGINS, size_bytes=SIZES, deadline=DEADLINES, tenant=TENANTS,
        is_old=st.booleans(), redrives=st.integers(0, 2), twice=st.booleans(),
    )  # fmt: skip
    def admit(
        self, request_id: str, origin: str, size_bytes: int, deadline: int, tenant: str, *,
        is_old: bool, redrives: int, twice: bool,
    ) -> Any:  # fmt: skip
        self.moment += 1
        deadline_at = self.passed_ms + deadline
        before = self.before.get(request_id)

        def arrival(index: int, world: World) -> Arrival:
            return replace(
                self._arrival(index, request_id, origin, size_bytes, redrives),
                deadline_ms=self.deadline_ms(world, deadline_at),
                tenant_id=tenant,
                recorded_ms=1 if is_old else FAR_FUTURE_MS,
            )

        answers = self.both(lambda index, world: world.store.admit(arrival(index, world), LIMITS), twice=twice)
        if not isinstance(answers[0], Admitted) or not isinstance(answers[1], Admitted):
            return multiple()
        if not answers[0].repeated:
            if before is not None:
                assert Step.REDRIVE in possible_steps(Standing(before.state, before.version))
                assert answers[0].version > before.version
            self._begins(request_id)
            self.sizes[request_id] = self.counted[request_id] = size_bytes
        versions = answers[0].version, answers[1].version
        return Task(request_id, versions, answers[0].attempt, self.sizes[request_id], deadline_at)

    @rule(
        request_id=IDS, origin=ORIGINS, state=st.sampled_from([State.REJECTED, State.EXPIRED]),
        redrives=st.integers(0, 2), twice=st.booleans(),
    )  # fmt: skip
    def refuse(self, request_id: str, origin: str, state: State, redrives: int, *, twice: bool) -> None:
        self._begins(request_id)  # or it changes nothing, as the counts will show
        outcome = f"{origin} {state} {self.names}".encode()
        self.both(
            lambda index, world: world.store.refuse(
                self._arrival(index, request_id, origin, 9, redrives), state, outcome, version=redrives + 1
            ),
            twice=twice,
        )
        self.begun_again.discard(request_id)
        known = self._known(request_id)
        if known is not None and known != self.before.get(request_id):
            self._begins(request_id)

    def _arrival(self, index: int, request_id: str, origin: str, size_bytes: int, redrives: int) -> Arrival:
        return Arrival(
            request_id=request_id,
            origin=f"{origin}-{redrives}",
            size_bytes=size_bytes,
            deadline_ms=0,
            summary=f"door {self.moment}".encode(),
            submitted_ms=self.began_ms[index] + self.moment,
            redrive=Redrive(count=redrives, state_version=redrives, attempt=redrives) if redrives else None,
        )

    # ---- lanes

    @rule(target=leases, task=tasks, owner=OWNERS, is_any=st.booleans(), twice=st.booleans())
    def claim(self, task: Task, owner: str, *, is_any: bool, twice: bool) -> Any:
        request_id = task.request_id
        before = self._known_to_both(request_id)
        token = f"token-{self.names}"

        def ref(index: int, world: World) -> TaskRef | None:
            return None if is_any else TaskRef(
                version=task.versions[index],
                attempt=task.attempt,
                size_bytes=task.size_bytes,
                deadline_ms=self.deadline_ms(world, task.deadline_at),
            )  # fmt: skip

        answers = self.both(
            lambda index, world: world.store.claim(
                request_id, owner=owner, lease_ms=LEASE_MS, token=token, task=ref(index, world)
            ),
            twice=twice,
        )
        if not isinstance(answers[0], Claimed) or not isinstance(answers[1], Claimed):
            return multiple()
        leases = answers[0].lease, answers[1].lease
        for index, lease in enumerate(leases):
            fence = lease.fence
            assert fence > self.fences[index].get(request_id, 0)
            self.fences[index][request_id] = fence
        known = before[0]
        if known is None or (not is_any and task.versions[0] > known.version):
            assert answers[0].history_missing
            self._begins(request_id)
        else:
            assert not known.state.is_terminal
            assert known.held_ms == 0
        if not is_any:
            self.sizes.setdefault(request_id, task.size_bytes)
        if request_id in self.sizes:
            self.counted.setdefault(request_id, self.sizes[request_id])
        return leases

    @rule(some=st.lists(leases, max_size=6))
    def renew(self, some: list[Pair[Lease]]) -> None:
        self.both(lambda index, world: world.store.renew([pair[index] for pair in some], lease_ms=LEASE_MS), twice=True)

    @rule(leases=leases, called=st.booleans(), twice=st.booleans())
    def release(self, leases: Pair[Lease], *, called: bool, twice: bool) -> None:
        self.both(lambda index, world: world.store.release(leases[index], called=called), twice=twice)

    @rule(leases=leases, state=ENDS, is_own=st.booleans(), twice=st.booleans())
    def settle(self, leases: Pair[Lease], state: State, *, is_own: bool, twice: bool) -> None:
        request_id = leases[0].request_id
        outcome = f"{leases[0].fence} {state} {is_own}".encode()
        answers = self.both(
            lambda index, world: world.store.settle(replace(leases[index], is_own=is_own), state, outcome), twice=twice
        )
        if answers[0] is None:
            self._won(request_id, (leases[0], state))
            self.counted.pop(request_id, None)
        elif answers[0].state.is_terminal:
            assert self.before[request_id].state.is_terminal

    @rule(
        target=tasks, leases=leases, state=st.sampled_from([State.RETRY_SCHEDULED, State.QUEUED]), task=tasks,
        is_own=st.booleans(), twice=st.booleans(),
    )  # fmt: skip
    def reschedule(self, leases: Pair[Lease], state: State, task: Task, *, is_own: bool, twice: bool) -> Any:
        summary = f"after {leases[0].attempt}".encode()
        answers = self.both(
            lambda index, world: world.store.reschedule(
                replace(leases[index], is_own=is_own),
                state,
                task_version=task.versions[index],
                next_attempt=leases[0].attempt + 1,
                summary=summary,
            ),
            twice=twice,
        )
        if answers[0] is not None:
            return multiple()
        versions = leases[0].version + 1, leases[1].version + 1
        return replace(task, request_id=leases[0].request_id, versions=versions, attempt=leases[0].attempt + 1)

    @rule(target=tasks, task=tasks, twice=st.booleans())
    def requeue(self, task: Task, *, twice: bool) -> Any:
        known = self._known(task.request_id)
        if known is None or task.versions[0] > known.version:
            self._begins(task.request_id)
        answers = self.both(
            lambda index, world: world.store.requeue(
                task.request_id,
                task_version=task.versions[index],
                attempt=task.attempt,
                summary=b"waited",
                deadline_ms=self.deadline_ms(world, task.deadline_at),
            ),
            twice=twice,
        )
        if not isinstance(answers[0], Moved) or not isinstance(answers[1], Moved):
            return multiple()
        return replace(task, versions=(answers[0].version, answers[1].version))

    # ---- from outside

    @rule(target=sightings, request_id=IDS)
    def see(self, request_id: str) -> Any:
        first, second = self._known_to_both(request_id)
        if first is None or second is None or first.state.is_terminal:
            return multiple()
        return first, second

    @rule(sighting=sightings, state=st.sampled_from([State.EXPIRED, State.CANCELLED]), twice=st.booleans())
    def end(self, sighting: Pair[Known], state: State, *, twice: bool) -> None:
        request_id = sighting[0].request_id
        ending_step(sighting[0].state, state)
        outcome = f"{sighting[0].version} {state}".encode()
        known = self._known(request_id)
        answers = self.both(lambda index, world: world.store.end(sighting[index], state, outcome), twice=twice)
        if answers[0] is None:
            assert known is not None
            assert known.held_ms == 0
            self._won(request_id, (sighting[0].version, state))
            if not known.state.is_terminal:
                self.counted[request_id] = self.sizes.setdefault(request_id, 0)

    @rule(ends=st.lists(st.tuples(IDS, ENDS, st.integers(1, 8)), max_size=3), twice=st.booleans())
    def confirm_anything(self, ends: list[tuple[str, State, int]], *, twice: bool) -> None:
        self._confirm([(request_id, state, (version, version)) for request_id, state, version in ends], twice=twice)

    @rule(request_ids=st.lists(IDS, max_size=3, unique=True), twice=st.booleans())
    def confirm_what_ended(self, request_ids: list[str], *, twice: bool) -> None:
        known = [self._known_to_both(request_id) for request_id in request_ids]
        ends = [
            (first.request_id, first.state, (first.version, second.version))
            for first, second in known
            if first is not None and second is not None and first.state.is_terminal
        ]
        self._confirm(ends, twice=twice)

    def _confirm(self, ends: list[tuple[str, State, Pair[int]]], *, twice: bool) -> None:
        self.both(
            lambda index, world: world.store.confirm(
                [Ended(request_id, state, versions[index]) for request_id, state, versions in ends]
            ),
            twice=twice,
        )
        for request_id, _, versions in ends:
            before, known = self.before.get(request_id), self._known(request_id)
            assert known is not None
            if versions[0] >= (before.version if before else 0):
                self.counted.pop(request_id, None)
            if before is None or (known.state, known.version) != (before.state, before.version):
                self._begins(request_id)  # Kafka is the truth, also where it tells of another end
            if known.state.is_terminal and known.outcome is None:
                self.sizes.pop(request_id, None)

    @rule(request_ids=st.lists(IDS, max_size=3))
    def cancel(self, request_ids: list[str]) -> None:
        self.both(lambda _, world: world.store.cancel(request_ids), twice=True)

    @rule(request_id=st.one_of(st.just(""), IDS), tenant=TENANTS)
    def forbid(self, request_id: str, tenant: str) -> None:
        self.both(
            lambda index, world: world.store.forbid(
                Cancellation(request_id=request_id, tenant_id=tenant, issued_ms=self.began_ms[index] + self.moment)
            ),
            twice=True,
        )

    # ---- time and loss

    @rule()
    def let_leases_lapse(self) -> None:
        self.both(lambda _, world: world.let_pass(LEASE_MS + 1))
        self.passed_ms += LEASE_MS + 1

    @rule(request_id=IDS)
    def lose(self, request_id: str) -> None:
        if self._known(request_id) is not None:
            self.both(lambda _, world: world.lose(request_id))
            self._forget(request_id)

    @rule(dice=st.integers(0, 3))
    def flush(self, dice: int) -> None:
        if dice == 0:
            self.both(lambda _, world: world.flush())
            for request_id in ID_LIST:
                self._forget(request_id)
            self.both(lambda _, world: world.store.is_restored())

    @rule()
    def restore(self) -> None:
        self.both(lambda _, world: world.store.is_restored())
        self.both(lambda _, world: world.store.restored(), twice=True)
        assert self.both(lambda _, world: world.store.is_restored()) == (True, True)

    # ---- what must hold

    @invariant()
    def what_is_known_is_alike_and_goes_only_forward(self) -> None:
        first, _ = self.both(lambda _, world: world.store.look(ID_LIST))
        for known in first:
            before = self.before.get(known.request_id)
            if before is None or known.request_id in self.begun_again:
                continue
            assert known.version >= before.version
            if before.state.is_terminal:
                assert (known.state, known.version) == (before.state, before.version)
                assert known.outcome in (before.outcome, None)
        for request_id in self.begun_again:
            self.winners.pop(request_id, None)
        self.begun_again = set()
        self.before = {known.request_id: known for known in first}

    @invariant()
    def counts_are_the_truth(self) -> None:
        truth = (len(self.counted), sum(self.counted.values()))
        assert self.both(lambda _, world: world.store.outstanding()) == (truth, truth)
        assert self.both(lambda _, world: told(world)) == (sorted(self.counted), sorted(self.counted))

    @invariant()
    def what_is_due_is_alike_and_counted(self) -> None:
        due, _ = self.both(lambda _, world: due_in(world))
        assert set(due) <= set(self.counted)

    def _known(self, request_id: str) -> Known | None:
        return self._known_to_both(request_id)[0]

    def _known_to_both(self, request_id: str) -> Pair[Known | None]:
        async def look(_: int, world: World) -> list[Known]:
            return await world.store.look([request_id])

        first, second = self.both(look)
        return next(iter(first), None), next(iter(second), None)

    def _begins(self, request_id: str) -> None:
        self.begun_again.add(request_id)

    def _forget(self, request_id: str) -> None:
        self._begins(request_id)
        for kept in (self.sizes, self.counted):
            kept.pop(request_id, None)

    def _won(self, request_id: str, winner: object) -> None:
        """Nobody else did in this life."""
        before = self.before.get(request_id)
        if before is not None and before.state.is_terminal:
            assert self.winners.get(request_id) == winner
        self.winners[request_id] = winner


def as_first(reply: Any) -> Any:
    """The reply to a step made again, as if it were the first."""
    return replace(reply, repeated=False) if isinstance(reply, Admitted) else alike(reply)


async def told(world: World) -> list[str]:
    return sorted({request_id async for batch in world.store.counted() for request_id in batch})


async def due_in(world: World) -> list[str]:
    return sorted(await world.store.overdue(limit=100))


SETTINGS = settings(stateful_step_count=40, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
"""Not to be explained: that traces each line of the Redis client."""


@pytest.mark.parametrize("kind", ["memory", "redis", "cluster"])
def test_stores_answer_alike_and_keep_what_they_promise(kind: str, request: pytest.FixtureRequest) -> None:
    """In many random lives. The memory store's own twin is there to find quickly what both do wrong."""
    with asyncio.Runner() as runner:
        if kind == "memory":
            check(lambda: TwinMachine(runner, MemoryWorld()), max_examples=200)
            return
        url = request.getfixturevalue("redis_url" if kind == "redis" else "cluster_url")
        mode = RedisSettings(timeout_seconds=30, mode="single" if kind == "redis" else "cluster")
        world = runner.run(made(mode, url))

        def machine() -> TwinMachine:
            runner.run(world.begin_anew())
            return TwinMachine(runner, world)

        check(machine, max_examples=60 if kind == "redis" else 20)
        runner.run(world.close())


def check(machine: Callable[[], TwinMachine], *, max_examples: int) -> None:
    # It takes whatever makes a machine, though its type says otherwise.
    run_state_machine_as_test(machine, settings=settings(SETTINGS, max_examples=max_examples))  # type: ignore[arg-type]


async def made(mode: RedisSettings, url: str) -> RedisWorld:
    return RedisWorld(mode, url)
