"""Two stores that make the same steps, and an account of what must hold in both."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from random import Random
from typing import Any, TypeVar

from connectors.state.base import (
    FAR_FUTURE_MS,
    Admitted,
    Arrival,
    Cancellation,
    Claimed,
    Ended,
    Known,
    Lease,
    Limits,
    Moved,
    TaskRef,
)
from policy.lifecycle import Standing, Step, possible_steps
from schemas.dead_letter_headers import Redrive
from schemas.vocabulary import State
from tests.state.likeness import alike, as_first
from tests.state.worlds import MemoryWorld, World

T = TypeVar("T")
Pair = tuple[T, T]

LEASE_MS = 600_000
LIMITS = Limits(max_requests=6, max_bytes=1_000, high_watermark=0.8, low_watermark=0.4)
IDS = [f"r{number}" for number in range(4)]
ORIGINS = ["first-record", "second-record"]
TENANTS = ["acme", "other"]
DEADLINES_MS = [25 * 60_000, 100 * 3_600_000]
ENDS = [State.COMPLETED, State.FAILED, State.EXPIRED, State.CANCELLED]
RECENT = 8
"""How many of the last tasks, leases and sightings are used: older ones are all alike."""


@dataclass(frozen=True)
class Task:
    """A task as Kafka has it. Its version may differ between the two stores, where it came from their clocks."""

    request_id: str
    versions: Pair[int]
    attempt: int
    size_bytes: int
    deadline_at: int


class Twins:
    """Makes each step in two stores, sometimes twice as after a lost reply, and keeps account of what must hold."""

    def __init__(self, runner: asyncio.Runner, world: World) -> None:
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
        self.tasks: list[Task] = []
        self.leases: list[tuple[Task, Pair[Lease]]] = []
        self.sightings: list[Pair[Known]] = []

    def make(self, step: str, seed: int) -> None:
        """One step whose arguments follow from the seed, and a look at what must hold."""
        getattr(self, step)(Random(seed))
        self._what_is_known_goes_only_forward()
        self._counts_are_the_truth()

    def both(self, step: Callable[[int, World], Coroutine[Any, Any, T]], chance: Random | None = None) -> Pair[T]:
        """The replies of both stores, which are alike; so are those to the same step again, which is up to chance."""

        async def make() -> tuple[T, T]:
            first, second = [await step(index, world) for index, world in enumerate(self.worlds)]
            return first, second

        self.names += 1
        replies = self.runner.run(make())
        assert alike(replies[0]) == alike(replies[1])
        if chance is not None and chance.random() < 0.3:
            again = self.runner.run(make())
            assert [as_first(reply) for reply in again] == [as_first(reply) for reply in replies]
        return replies

    def _deadline_ms(self, world: World, deadline_at: int) -> int:
        return world.now_ms() + deadline_at - self.passed_ms

    # ---- the door

    def admit(self, chance: Random) -> None:
        request_id, origin, tenant = chance.choice(IDS), chance.choice(ORIGINS), chance.choice(TENANTS)
        size_bytes, redrives, is_old = chance.randint(0, 300), chance.randint(0, 2), chance.random() < 0.2
        self.moment += 1
        deadline_at = self.passed_ms + chance.choice(DEADLINES_MS)
        before = self.before.get(request_id)

        def arrival(index: int, world: World) -> Arrival:
            return replace(
                self._arrival(index, request_id, origin, size_bytes, redrives),
                deadline_ms=self._deadline_ms(world, deadline_at),
                tenant_id=tenant,
                recorded_ms=1 if is_old else FAR_FUTURE_MS,
            )

        answers = self.both(lambda index, world: world.store.admit(arrival(index, world), LIMITS), chance)
        if not isinstance(answers[0], Admitted) or not isinstance(answers[1], Admitted):
            return
        if not answers[0].repeated:
            if before is not None:
                assert Step.REDRIVE in possible_steps(Standing(before.state, before.version))
                assert answers[0].version > before.version
            self._begins(request_id)
            self.sizes[request_id] = self.counted[request_id] = size_bytes
        versions = answers[0].version, answers[1].version
        self.tasks.append(Task(request_id, versions, answers[0].attempt, self.sizes[request_id], deadline_at))

    def refuse(self, chance: Random) -> None:
        request_id, origin, redrives = chance.choice(IDS), chance.choice(ORIGINS), chance.randint(0, 2)
        state = chance.choice([State.REJECTED, State.EXPIRED])
        outcome = f"{origin} {state} {self.names}".encode()
        self.both(
            lambda index, world: world.store.refuse(
                self._arrival(index, request_id, origin, 9, redrives), state, outcome, version=redrives + 1
            ),
            chance,
        )
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

    def claim(self, chance: Random) -> None:
        if not self.tasks:
            return
        task, owner, is_any = chance.choice(self.tasks[-RECENT:]), chance.choice("ab"), chance.random() < 0.2
        request_id = task.request_id
        before = self._known_to_both(request_id)
        token = f"token-{self.names}"

        def ref(index: int, world: World) -> TaskRef | None:
            return None if is_any else TaskRef(
                version=task.versions[index],
                attempt=task.attempt,
                size_bytes=task.size_bytes,
                deadline_ms=self._deadline_ms(world, task.deadline_at),
            )  # fmt: skip

        answers = self.both(
            lambda index, world: world.store.claim(
                request_id, owner=owner, lease_ms=LEASE_MS, token=token, task=ref(index, world)
            ),
            chance,
        )
        if not isinstance(answers[0], Claimed) or not isinstance(answers[1], Claimed):
            return
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
        self.leases.append((task, leases))

    def renew(self, chance: Random) -> None:
        some = [leases for _, leases in self.leases if chance.random() < 0.5]
        self.both(lambda index, world: world.store.renew([pair[index] for pair in some], lease_ms=LEASE_MS), chance)

    def release(self, chance: Random) -> None:
        if not self.leases:
            return
        called, (_, leases) = chance.random() < 0.5, chance.choice(self.leases[-RECENT:])
        self.both(lambda index, world: world.store.release(leases[index], called=called), chance)

    def settle(self, chance: Random) -> None:
        if not self.leases:
            return
        state, is_own = chance.choice(ENDS), chance.random() < 0.3
        _, leases = chance.choice(self.leases[-RECENT:])
        request_id = leases[0].request_id
        outcome = f"{leases[0].fence} {state} {is_own}".encode()
        answers = self.both(
            lambda index, world: world.store.settle(replace(leases[index], is_own=is_own), state, outcome), chance
        )
        if answers[0] is None:
            self._won(request_id, (leases[0], state))
            self.counted.pop(request_id, None)
        elif answers[0].state.is_terminal:
            assert self.before[request_id].state.is_terminal

    def reschedule(self, chance: Random) -> None:
        if not self.leases:
            return
        state, is_own = chance.choice([State.RETRY_SCHEDULED, State.QUEUED]), chance.random() < 0.3
        task, leases = chance.choice(self.leases[-RECENT:])
        summary = f"after {leases[0].attempt}".encode()
        answers = self.both(
            lambda index, world: world.store.reschedule(
                replace(leases[index], is_own=is_own),
                state,
                task_version=task.versions[index],
                next_attempt=leases[0].attempt + 1,
                summary=summary,
            ),
            chance,
        )
        if answers[0] is None:
            versions = leases[0].version + 1, leases[1].version + 1
            self.tasks.append(replace(task, versions=versions, attempt=leases[0].attempt + 1))

    def requeue(self, chance: Random) -> None:
        if not self.tasks:
            return
        task = chance.choice(self.tasks[-RECENT:])
        known = self._known(task.request_id)
        if known is None or task.versions[0] > known.version:
            self._begins(task.request_id)
        answers = self.both(
            lambda index, world: world.store.requeue(
                task.request_id,
                task_version=task.versions[index],
                attempt=task.attempt,
                summary=b"waited",
                deadline_ms=self._deadline_ms(world, task.deadline_at),
            ),
            chance,
        )
        if not isinstance(answers[0], Moved) or not isinstance(answers[1], Moved):
            return
        self.tasks.append(replace(task, versions=(answers[0].version, answers[1].version)))

    # ---- from outside

    def see(self, chance: Random) -> None:
        first, second = self._known_to_both(chance.choice(IDS))
        if first is not None and second is not None and not first.state.is_terminal:
            self.sightings.append((first, second))

    def end(self, chance: Random) -> None:
        if not self.sightings:
            return
        sighting = chance.choice(self.sightings[-RECENT:])
        state = chance.choice([State.EXPIRED, State.CANCELLED])
        request_id = sighting[0].request_id
        outcome = f"{sighting[0].version} {state}".encode()
        known = self._known(request_id)
        answers = self.both(lambda index, world: world.store.end(sighting[index], state, outcome), chance)
        if answers[0] is None:
            assert known is not None
            assert known.held_ms == 0
            self._won(request_id, (sighting[0].version, state))
            if not known.state.is_terminal:
                self.counted[request_id] = self.sizes.setdefault(request_id, 0)

    def confirm_what_is_not_known(self, chance: Random) -> None:
        """As of ends that were reached while the store was away."""
        version = chance.randint(1, 8)
        self._confirm([(chance.choice(IDS), chance.choice(ENDS), (version, version))], chance)

    def confirm_what_ended(self, chance: Random) -> None:
        known = [self._known_to_both(request_id) for request_id in IDS if chance.random() < 0.5]
        ends = [
            (first.request_id, first.state, (first.version, second.version))
            for first, second in known
            if first is not None and second is not None and first.state.is_terminal
        ]
        self._confirm(ends, chance)

    def _confirm(self, ends: list[tuple[str, State, Pair[int]]], chance: Random) -> None:
        self.both(
            lambda index, world: world.store.confirm(
                [Ended(request_id, state, versions[index]) for request_id, state, versions in ends]
            ),
            chance,
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

    def cancel(self, chance: Random) -> None:
        request_id = chance.choice(IDS)
        self.both(lambda _, world: world.store.cancel([request_id]), chance)

    def forbid(self, chance: Random) -> None:
        request_id, tenant = chance.choice(["", *IDS]), chance.choice(TENANTS)
        self.both(
            lambda index, world: world.store.forbid(
                Cancellation(request_id=request_id, tenant_id=tenant, issued_ms=self.began_ms[index] + self.moment)
            ),
            chance,
        )

    # ---- time and loss

    def let_leases_lapse(self, _: Random) -> None:
        self.both(lambda _, world: world.let_pass(LEASE_MS + 1))
        self.passed_ms += LEASE_MS + 1

    def lose(self, chance: Random) -> None:
        request_id = chance.choice(IDS)
        if self._known(request_id) is not None:
            self.both(lambda _, world: world.lose(request_id))
            self._forget(request_id)

    def flush(self, _: Random) -> None:
        self.both(lambda _, world: world.flush())
        for request_id in IDS:
            self._forget(request_id)

    def restore(self, chance: Random) -> None:
        self.both(lambda _, world: world.store.is_restored())
        self.both(lambda _, world: world.store.restored(), chance)
        assert self.both(lambda _, world: world.store.is_restored()) == (True, True)

    # ---- what must hold

    def _what_is_known_goes_only_forward(self) -> None:
        first, _ = self.both(lambda _, world: world.store.look(IDS))
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

    def _counts_are_the_truth(self) -> None:
        truth = (len(self.counted), sum(self.counted.values()))
        assert self.both(lambda _, world: world.store.outstanding()) == (truth, truth)
        assert self.both(lambda _, world: told(world)) == (sorted(self.counted), sorted(self.counted))
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


async def told(world: World) -> list[str]:
    return sorted({request_id async for batch in world.store.counted() for request_id in batch})


async def due_in(world: World) -> list[str]:
    return sorted(await world.store.overdue(limit=100))
