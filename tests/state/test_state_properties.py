"""Any order of steps by any owners, against a model: one winner, exact counts, versions and fences that only grow."""

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import settings
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
    Admission,
    Admitted,
    Arrival,
    Busy,
    Claimed,
    Duplicate,
    Full,
    Lease,
    Limits,
    Settled,
)
from policy.lifecycle import Standing, Step, advance
from schemas.vocabulary import State
from tests.state.worlds import MemoryWorld, World, redis_world

T = TypeVar("T")

LEASE_MS = 600_000
DEADLINE_MS = 100 * 3_600_000
LIMITS = Limits(max_requests=5, max_bytes=1_000, high_watermark=0.8, low_watermark=0.4)
ENDING_STEPS = {
    State.COMPLETED: Step.COMPLETE,
    State.FAILED: Step.FAIL,
    State.EXPIRED: Step.EXPIRE,
    State.CANCELLED: Step.CANCEL,
}

IDS = st.sampled_from([f"r{number}" for number in range(6)])
OWNERS = st.sampled_from(["a", "b", "c"])
ORIGINS = st.sampled_from(["first-record", "second-record"])
SIZES = st.integers(0, 400)


@dataclass(kw_only=True)
class Model:
    """What ought to be known of one request."""

    standing: Standing
    origin: str | None
    size_bytes: int | None = None  # of what is counted
    attempt: int = 1
    lost: list[tuple[int, str]] = field(default_factory=list)
    holder: Lease | None = None
    owner: str = ""
    token: str = ""
    is_lapsed: bool = False
    winner: Lease | None = None
    outcome: bytes | None = None
    was_claimed: bool = False

    def step(self, step: Step) -> None:
        self.standing = advance(self.standing, step)

    def settled(self) -> Settled:
        return Settled(self.standing.state, self.standing.version, self.outcome)


class StoreMachine(RuleBasedStateMachine):
    """Runs steps on a store and on the model, and compares what they answer."""

    leases = Bundle("leases")
    world_context: ClassVar[Any]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.context: AbstractAsyncContextManager[World] = self.world_context()
        self.world: World = self.run(self.context.__aenter__())
        self.models: dict[str, Model] = {}
        self.is_closed = False
        self.fences: dict[str, int] = {}
        self.tokens = 0

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(step)

    def teardown(self) -> None:
        self.run(self.context.__aexit__(None, None, None))
        self.runner.close()

    @property
    def counted(self) -> list[int]:
        return [model.size_bytes for model in self.models.values() if model.size_bytes is not None]

    @rule(request_id=IDS, origin=ORIGINS, size_bytes=SIZES)
    def admit(self, request_id: str, origin: str, size_bytes: int) -> None:
        arrival = self._arrival(request_id, origin, size_bytes)
        answer = self.run(self.world.store.admit(arrival, LIMITS))
        known = self.models.get(request_id)
        if known is not None:
            assert answer == self._seen_before(known, origin)
            return
        requests, size_held = len(self.counted), sum(self.counted)
        if requests <= 2 and size_held <= 400:
            self.is_closed = False
        if requests >= 4 or size_held >= 800:
            self.is_closed = True
        if self.is_closed:
            assert answer == Full(requests, size_held)
            return
        model = Model(standing=advance(None, Step.ADMIT), origin=origin, size_bytes=size_bytes)
        self.models[request_id] = model
        assert answer == Admitted(model.standing.version)

    @rule(request_id=IDS, origin=ORIGINS, state=st.sampled_from([State.REJECTED, State.EXPIRED]))
    def refuse(self, request_id: str, origin: str, state: State) -> None:
        outcome = f"{origin} {state}".encode()
        answer = self.run(self.world.store.refuse(self._arrival(request_id, origin, 9), state, outcome))
        known = self.models.get(request_id)
        if known is not None:
            assert answer == self._seen_before(known, origin)
            return
        step = Step.REJECT if state is State.REJECTED else Step.EXPIRE
        model = Model(standing=advance(None, step), origin=origin, outcome=outcome)
        self.models[request_id] = model
        assert answer == model.settled()

    @rule(target=leases, request_id=IDS, owner=OWNERS)
    def claim(self, request_id: str, owner: str) -> Any:
        self.tokens += 1
        token = f"token-{self.tokens}"
        answer = self.run(self.world.store.claim(request_id, owner=owner, lease_ms=LEASE_MS, token=token))
        model = self.models.get(request_id)
        if model is None:
            assert isinstance(answer, Claimed)
            assert answer.history_missing
            # Its version is the store's own choice: it only has to be one that no earlier life used.
            model = Model(standing=Standing(State.QUEUED, answer.lease.version - 1), origin=None)
            self.models[request_id] = model
        if model.standing.state.is_terminal:
            assert answer == model.settled()
            return multiple()
        if model.holder is not None and not model.is_lapsed:
            assert isinstance(answer, Busy)
            assert 0 < answer.retry_after_ms <= LEASE_MS
            return multiple()
        reclaimed = model.standing.state is State.PROCESSING
        if reclaimed:
            model.lost.append((model.attempt, model.owner))
            model.attempt += 1
        model.step(Step.RECLAIM if reclaimed else Step.CLAIM)
        assert isinstance(answer, Claimed)
        lease = answer.lease
        assert lease.fence > self.fences.get(request_id, 0)
        assert (lease.attempt, lease.version) == (model.attempt, model.standing.version)
        assert lease.attempt == len(answer.lost_calls) + 1
        self._check_history(model, answer)
        self.fences[request_id] = lease.fence
        model.holder, model.owner, model.token = lease, owner, token
        model.is_lapsed, model.was_claimed = False, True
        return lease

    @rule(request_id=IDS)
    def claim_again_after_a_lost_reply(self, request_id: str) -> None:
        model = self.models.get(request_id)
        if model is None or model.holder is None:
            return
        claim = self.world.store.claim(request_id, owner=model.owner, lease_ms=LEASE_MS, token=model.token)
        answer = self.run(claim)
        assert isinstance(answer, Claimed)
        assert answer.lease == model.holder
        self._check_history(model, answer)
        model.is_lapsed = False

    @rule()
    def let_leases_lapse(self) -> None:
        self.run(self.world.let_pass(LEASE_MS + 1))
        for model in self.models.values():
            model.is_lapsed = True

    @rule(some=st.lists(leases, max_size=8))
    def renew(self, some: list[Lease]) -> None:
        held = [lease for lease in some if self.models[lease.request_id].holder == lease]
        lost = self.run(self.world.store.renew(some, lease_ms=LEASE_MS))
        assert sorted(map(str, lost)) == sorted(str(lease) for lease in some if lease not in held)
        for lease in held:
            self.models[lease.request_id].is_lapsed = False

    @rule(lease=leases, called=st.booleans())
    def release(self, lease: Lease, *, called: bool) -> None:
        self.run(self.world.store.release(lease, called=called))
        model = self.models[lease.request_id]
        if model.holder == lease:
            model.holder = None
            if not called:
                model.step(Step.RELEASE)

    @rule(lease=leases, state=st.sampled_from(sorted(ENDING_STEPS)))
    def settle(self, lease: Lease, state: State) -> None:
        outcome = f"{lease.fence} {state}".encode()
        answer = self.run(self.world.store.settle(lease, state, outcome))
        model = self.models[lease.request_id]
        if model.holder == lease:
            assert answer is None
            assert model.winner is None
            model.step(ENDING_STEPS[state])
            model.winner, model.outcome, model.holder, model.size_bytes = lease, outcome, None, None
        elif model.winner == lease and model.standing.state is state:
            assert answer is None
        else:
            assert answer == model.settled()

    @rule(request_ids=st.lists(IDS, max_size=4))
    def published(self, request_ids: list[str]) -> None:
        self.run(self.world.store.published(request_ids))
        for request_id in request_ids:
            if request_id in self.models:
                self.models[request_id].outcome = None

    @invariant()
    def counts_are_those_of_the_model(self) -> None:
        assert self.run(self.world.store.outstanding()) == (len(self.counted), sum(self.counted))

    def _arrival(self, request_id: str, origin: str, size_bytes: int) -> Arrival:
        deadline_ms = self.world.now_ms() + DEADLINE_MS
        return Arrival(
            request_id=request_id, origin=f"{origin}-{request_id}", size_bytes=size_bytes, deadline_ms=deadline_ms
        )

    def _seen_before(self, model: Model, origin: str) -> Admission:
        if model.was_claimed or model.origin != origin:
            return Duplicate(model.standing.state)
        if model.standing.state is State.QUEUED:
            return Admitted(model.standing.version, repeated=True)
        return model.settled()

    def _check_history(self, model: Model, answer: Claimed) -> None:
        assert [(lost.attempt, lost.owner) for lost in answer.lost_calls] == model.lost
        assert answer.newly_lost == bool(model.lost)
        assert answer.history_missing == (model.origin is None)


def test_the_memory_store_does_what_the_model_does() -> None:
    """In many random lives."""

    class Machine(StoreMachine):
        world_context = staticmethod(lambda: nullcontext(MemoryWorld()))

    run_state_machine_as_test(Machine, settings=settings(max_examples=200, stateful_step_count=50, deadline=None))


@pytest.mark.parametrize("kind", ["redis", "cluster"])
def test_the_redis_store_does_what_the_model_does(kind: str, request: pytest.FixtureRequest) -> None:
    """In fewer of them: the scripts and the memory store agree with each other through the model."""
    url = request.getfixturevalue("redis_url" if kind == "redis" else "cluster_url")
    mode = RedisSettings(timeout_seconds=30, mode="single" if kind == "redis" else "cluster")

    class Machine(StoreMachine):
        world_context = staticmethod(lambda: redis_world(mode, url))

    run_state_machine_as_test(Machine, settings=settings(max_examples=40, stateful_step_count=40, deadline=None))
