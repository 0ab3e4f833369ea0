"""Many workers that make steps at random on few requests, at the same time, over a real Redis."""

import asyncio
import random
from collections import Counter

from connectors.state.base import Admitted, Arrival, Claimed, Ended, Known, Lease, Limits, Moved, Settled, TaskRef
from connectors.state.store import StateStore
from schemas.dead_letter_headers import Redrive
from schemas.vocabulary import State
from tests.state.worlds import RedisWorld

WORKERS = 24
STEPS_EACH = 500
IDS = [f"r{number}" for number in range(4)]
LIMITS = Limits(max_requests=100, max_bytes=10**9)
SIZE_BYTES = 10
LEASE_MS = 4  # so that leases lapse all the time
ENDS = [State.COMPLETED, State.FAILED, State.FAILED, State.EXPIRED, State.CANCELLED]


class Crowd:
    """What all workers have seen: leases, tasks and ends, from which each takes what it likes, however old."""

    def __init__(self, world: RedisWorld) -> None:
        self.world = world
        self.store: StateStore = world.store
        self.leases: list[Lease] = []
        self.task_of: dict[int, int] = {}
        """Version of the task that was claimed, by fence."""
        self.tasks: list[tuple[str, int, int]] = []
        """Request, version and number of the next call of what is on a lane, and of what waits."""
        self.waiting: list[tuple[str, int, int]] = []
        self.sightings: list[Known] = []
        self.lives: Counter[str] = Counter()
        self.changes: Counter[tuple[str, int]] = Counter()
        """How many changes of state were made to a version of a request."""
        self.ends: dict[tuple[str, int], bytes] = {}
        self.redrives: Counter[str] = Counter()

    async def admit(self, chance: random.Random) -> None:
        request_id = chance.choice(IDS)
        self.redrives[request_id] += chance.random() < 0.3
        count = self.redrives[request_id]
        arrival = Arrival(
            request_id=request_id,
            origin=f"{count}",
            size_bytes=SIZE_BYTES,
            deadline_ms=self.world.now_ms(),
            redrive=Redrive(count=count, state_version=0, attempt=0) if count else None,
        )
        answer = await self.store.admit(arrival, LIMITS)
        if isinstance(answer, Admitted):
            self.tasks.append((request_id, answer.version, answer.attempt))
            if not answer.repeated:
                self.lives[request_id] += 1
                self.changes[request_id, answer.version] += 1

    async def claim(self, chance: random.Random) -> None:
        if not self.tasks:
            return
        request_id, version, attempt = chance.choice(self.tasks[-20:])
        task = TaskRef(version=version, attempt=attempt, size_bytes=SIZE_BYTES, deadline_ms=self.world.now_ms())
        answer = await self.store.claim(request_id, owner="w", lease_ms=LEASE_MS, task=task)
        if isinstance(answer, Claimed):
            assert not answer.history_missing
            self.leases.append(answer.lease)
            self.task_of[answer.lease.fence] = version
            self.changes[request_id, answer.lease.version] += 1

    async def settle(self, chance: random.Random) -> None:
        if not self.leases:
            return
        lease = chance.choice(self.leases[-10:])
        state = chance.choice(ENDS)
        outcome = f"{lease.fence} {state}".encode()
        if await self.store.settle(lease, state, outcome) is None:
            self._ended(lease.request_id, lease.version + 1, outcome)

    async def end(self, chance: random.Random) -> None:
        if not self.sightings:
            return
        seen = chance.choice(self.sightings[-10:])
        outcome = chance.randbytes(8)
        if await self.store.end(seen, chance.choice([State.EXPIRED, State.CANCELLED]), outcome) is None:
            self._ended(seen.request_id, seen.version + 1, outcome)

    def _ended(self, request_id: str, version: int, outcome: bytes) -> None:
        # The very same step may be told twice that it won. Nothing else may.
        self.changes[request_id, version] += (request_id, version) not in self.ends
        assert self.ends.setdefault((request_id, version), outcome) == outcome

    async def reschedule(self, chance: random.Random) -> None:
        if not self.leases:
            return
        lease = chance.choice(self.leases[-10:])
        state = chance.choice([State.QUEUED, State.RETRY_SCHEDULED])
        task_version, next_attempt = self.task_of[lease.fence], lease.attempt + 1
        answer = await self.store.reschedule(
            lease, state, task_version=task_version, next_attempt=next_attempt, summary=b""
        )
        following = (lease.request_id, lease.version + 1, next_attempt)
        if answer is None and following not in self.tasks + self.waiting:
            (self.tasks if state is State.QUEUED else self.waiting).append(following)
            self.changes[lease.request_id, lease.version + 1] += 1

    async def requeue(self, chance: random.Random) -> None:
        if not self.waiting:
            return
        request_id, version, attempt = chance.choice(self.waiting[-20:])
        answer = await self.store.requeue(
            request_id, task_version=version, attempt=attempt, summary=b"", deadline_ms=self.world.now_ms()
        )
        if isinstance(answer, Moved) and (request_id, answer.version, attempt) not in self.tasks:
            assert answer.version == version + 1
            self.tasks.append((request_id, answer.version, attempt))
            self.changes[request_id, answer.version] += 1

    async def release(self, chance: random.Random) -> None:
        if self.leases:
            await self.store.release(chance.choice(self.leases[-10:]), called=chance.random() < 0.5)

    async def look(self, chance: random.Random) -> None:
        self.sightings += [known for known in await self.store.look(IDS) if not known.state.is_terminal]

    async def confirm(self, chance: random.Random) -> None:
        ended = [known for known in await self.store.look(IDS) if known.state.is_terminal]
        await self.store.confirm([Ended(known.request_id, known.state, known.version) for known in ended])

    async def work(self, seed: int) -> None:
        chance = random.Random(seed)
        steps = [
            *(self.admit, self.claim, self.claim, self.claim, self.settle, self.reschedule, self.requeue),
            *(self.end, self.release, self.look, self.confirm),
        ]
        for _ in range(STEPS_EACH):
            await chance.choice(steps)(chance)


async def test_each_life_of_a_request_ends_once_whoever_works_on_it(one_redis: RedisWorld) -> None:
    """One winner for each end, no version for two changes, and counts that come out at nothing."""
    crowd = Crowd(one_redis)
    store = one_redis.store
    await asyncio.gather(*(crowd.work(seed) for seed in range(WORKERS)))
    assert len(crowd.ends) > len(IDS)

    for request_id in IDS:
        async with asyncio.timeout(30):
            while True:
                (known,) = await store.look([request_id])
                if known.state.is_terminal:
                    break
                if await store.end(known, State.EXPIRED, b"at last") is None:
                    crowd._ended(request_id, known.version + 1, b"at last")
        end = Settled(known.state, known.version, known.outcome)
        assert known.outcome in (crowd.ends[request_id, known.version], None), end
        await store.confirm([Ended(request_id, known.state, known.version)])
    assert Counter(request_id for request_id, _ in crowd.ends) == crowd.lives
    assert await store.outstanding() == (0, 0)
    # A release moves a request too, and is not told of it: some versions are nobody's.
    assert max(crowd.changes.values()) == 1
