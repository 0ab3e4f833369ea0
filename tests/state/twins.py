"""Random steps of the state store, for two stores at once."""

from dataclasses import replace
from random import Random

from connectors.state.base import (
    FAR_FUTURE_MS,
    Admitted,
    Arrival,
    CalledOff,
    Cancellation,
    Claimed,
    Doubtful,
    Ended,
    FoundTask,
    Limits,
    Moved,
    Place,
    Refusal,
    Settled,
    TaskRef,
)
from policy.lifecycle import Standing, Step, possible_steps
from schemas.dead_letter_headers import Redrive
from schemas.vocabulary import State
from tests.state.twin_account import IDS, Pair, Task, TwinAccount, due_in
from tests.state.worlds import World

LEASE_MS = 600_000
LIMITS = Limits(max_requests=6, max_bytes=1_000, high_watermark=0.8, low_watermark=0.4)
ORIGINS = ["first-record", "second-record"]
TENANTS = ["acme", "other"]
DEADLINES_MS = [25 * 60_000, 100 * 3_600_000]
ENDS = [State.COMPLETED, State.FAILED, State.EXPIRED, State.CANCELLED]
RECENT = 8
"""How many of the last tasks, leases and sightings are used: older ones are all alike."""


class Twins(TwinAccount):
    """Steps whose arguments are up to chance, taken from what earlier steps brought."""

    def make(self, step: str, seed: int) -> None:
        """One step whose arguments follow from the seed, and a look at what must hold."""
        getattr(self, step)(Random(seed))
        self._what_is_known_goes_only_forward()
        self._counts_are_the_truth()

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
        if before is None or answers[0].version != before.version:
            if before is not None:
                assert Step.REDRIVE in possible_steps(Standing(before.state, before.version))
                assert answers[0].version > before.version
            self._begins(request_id)
            self.sizes[request_id] = self.counted[request_id] = size_bytes
        if answers[0].cancelled:
            self.cancelled.add(request_id)
        versions = answers[0].version, answers[1].version
        self.tasks.append(Task(request_id, versions, answers[0].attempt, self.sizes[request_id], deadline_at, redrives))

    def refuse(self, chance: Random) -> None:
        request_id, origin, redrives = chance.choice(IDS), chance.choice(ORIGINS), chance.randint(0, 2)
        state = chance.choice([State.REJECTED, State.EXPIRED])
        outcome, is_old = f"{origin} {state} {self.names}".encode(), chance.random() < 0.2

        def refuse(versions: Pair[int]) -> Pair[Refusal]:
            return self.both(
                lambda index, world: world.store.refuse(
                    replace(
                        self._arrival(index, request_id, origin, 9, redrives),
                        recorded_ms=1 if is_old else FAR_FUTURE_MS,
                    ),
                    state,
                    outcome,
                    version=versions[index],
                ),
                chance,
            )

        answers = refuse((redrives + 1, redrives + 1))
        if isinstance(answers[0], Doubtful) and isinstance(answers[1], Doubtful):
            doubtful = answers[0].version, answers[1].version
            answers = refuse(doubtful)
            assert answers[0] == Settled(state, doubtful[0], outcome)
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
                redrives=task.redrives,
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
        is_own = chance.random() < 0.3
        self.both(
            lambda index, world: world.store.renew(
                [replace(pair[index], is_own=is_own) for pair in some], lease_ms=LEASE_MS
            ),
            chance,
        )

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
        if isinstance(answers[0], CalledOff):
            assert self._known(task.request_id) == self.before[task.request_id]
            assert task.request_id in self.cancelled
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
                redrives=task.redrives,
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
        place = chance.choice([None, Place(1, chance.randint(0, 99))])
        self.both(
            lambda index, world: world.store.confirm(
                [Ended(request_id, state, versions[index], place) for request_id, state, versions in ends]
            ),
            chance,
        )
        for request_id, _, versions in ends:
            before, known = self.before.get(request_id), self._known(request_id)
            assert known is not None
            assert known.version >= versions[0]
            if before is None or (known.state, known.version) != (before.state, before.version):
                self._begins(request_id)  # Kafka is the truth, also where it tells of another end
            if known.state.is_terminal and known.outcome is None:
                for kept in (self.sizes, self.counted):
                    kept.pop(request_id, None)

    def cancel(self, chance: Random) -> None:
        request_id = chance.choice(IDS)
        self.both(lambda _, world: world.store.cancel([request_id]), chance)
        self.cancelled.add(request_id)

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

    def adopt(self, chance: Random) -> None:
        """Of a task that was not done when the store was emptied, or one that is long done."""
        if not self.tasks:
            return
        task, state = chance.choice(self.tasks[-RECENT:]), chance.choice([State.QUEUED, State.RETRY_SCHEDULED])
        request_id, size_bytes, origin = task.request_id, chance.randint(0, 300), chance.choice(ORIGINS)
        redrives, summary = task.redrives, f"found {self.names}".encode()
        claimed_version = chance.choice([0, 2, 2**50])
        tenant, earlier_calls, age = chance.choice(TENANTS), chance.randint(0, 1), chance.randint(0, 3)
        before = self._known(request_id)

        def found(index: int, world: World) -> FoundTask:
            ref = TaskRef(
                version=task.versions[index],
                attempt=task.attempt,
                size_bytes=size_bytes,
                deadline_ms=self._deadline_ms(world, task.deadline_at),
                redrives=redrives,
            )
            return FoundTask(
                request_id=request_id,
                state=state,
                task=ref,
                summary=summary,
                origin=f"{origin}-{redrives}",
                tenant_id=tenant,
                asked_ms=self.began_ms[index] + self.moment - age,
                earlier_calls=earlier_calls,
                claimed_version=claimed_version,
            )

        self.both(lambda index, world: world.store.adopt(found(index, world)), chance)
        known = self._known(request_id)
        assert known is not None
        if known.cancelled and not known.state.is_terminal:
            self.cancelled.add(request_id)
            assert request_id in self.runner.run(due_in(self.worlds[0]))
        if known.summary != summary:
            assert before is not None
            assert known == replace(before, cancelled=known.cancelled, in_doubt=known.in_doubt)
            assert known.in_doubt >= before.in_doubt
            if not known.state.is_terminal and request_id not in self.sizes:
                self.sizes[request_id] = self.counted[request_id] = size_bytes
            return
        assert known.in_doubt
        assert known.version > max(task.versions[0], before.version if before else 0)
        if before is None or before.state.is_terminal:
            self._begins(request_id)
        elif task.versions[0] <= before.version:
            assert before.in_doubt
            assert before.running is None
        self.sizes[request_id] = self.counted[request_id] = size_bytes

    def restore(self, chance: Random) -> None:
        self.both(lambda _, world: world.store.is_restored())
        self.both(lambda _, world: world.store.restored(), chance)
        assert self.both(lambda _, world: world.store.is_restored()) == (True, True)
