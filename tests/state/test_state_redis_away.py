"""Redis away: every step fails in bounded time with one kind of error, and works again when Redis is back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import uuid4

import pytest
from pydantic import SecretStr
from redis.crc import key_slot
from tenacity import retry, retry_if_exception_type, stop_after_delay

from connectors.settings import RedisSettings
from connectors.state.base import (
    Admitted,
    Arrival,
    Cancellation,
    Claimed,
    Ended,
    FoundTask,
    Known,
    Lease,
    Limits,
    Settled,
    StateUnavailableError,
    TaskRef,
)
from connectors.state.keys import KeyLayout
from connectors.state.redis_store import RedisStateStore
from schemas.vocabulary import State
from tests.state.conftest import CLUSTER_SETTINGS
from tests.state.redis_process import SLOTS, RedisProcess

ROOMY = Limits(max_requests=100_000, max_bytes=1024**3)
SETTINGS = RedisSettings(timeout_seconds=0.3, max_connections=8)
# What the slowest machine may take for something whose own limit is 0.3 s.
PATIENCE_SECONDS = 20
T = TypeVar("T")
KNOWN = Known(request_id="r1", state=State.QUEUED, version=1, summary=b"")
FOUND = FoundTask(
    request_id="r1",
    state=State.QUEUED,
    task=TaskRef(version=1, attempt=1, size_bytes=1, deadline_ms=0),
    summary=b"",
    origin="o",
)
LEASE = Lease(request_id="r1", fence=1, attempt=1, version=2)
LEASE_MS = 60_000

STEPS: dict[str, Callable[[RedisStateStore], Awaitable[object]]] = {
    "admit": lambda store: store.admit(arrival("r1"), ROOMY),
    "refuse": lambda store: store.refuse(arrival("r1"), State.REJECTED, b""),
    "claim": lambda store: store.claim("r1", owner="w", lease_ms=LEASE_MS),
    "renew": lambda store: store.renew([LEASE], lease_ms=LEASE_MS),
    "release": lambda store: store.release(LEASE, called=True),
    "settle": lambda store: store.settle(LEASE, State.COMPLETED, b""),
    "reschedule": lambda store: store.reschedule(
        LEASE, State.RETRY_SCHEDULED, task_version=1, next_attempt=2, summary=b""
    ),
    "requeue": lambda store: store.requeue("r1", task_version=3, attempt=2, summary=b"", deadline_ms=0),
    "end": lambda store: store.end(KNOWN, State.EXPIRED, b""),
    "overdue": lambda store: store.overdue(limit=9),
    "look": lambda store: store.look(["r1"]),
    "counted": lambda store: anext(aiter(store.counted())),
    "cancel": lambda store: store.cancel(["r1"]),
    "forbid": lambda store: store.forbid(Cancellation(request_id="r1", issued_ms=1)),
    "confirm": lambda store: store.confirm([Ended("r1", State.COMPLETED, 3)]),
    "outstanding": lambda store: store.outstanding(),
    "adopt": lambda store: store.adopt(FOUND),
    "is_restored": lambda store: store.is_restored(),
}


def arrival(request_id: str) -> Arrival:
    return Arrival(request_id=request_id, origin="o", size_bytes=1, deadline_ms=0)


def store_of(server: RedisProcess, settings: RedisSettings = SETTINGS) -> RedisStateStore:
    return RedisStateStore.from_settings(settings, SecretStr(server.url), namespace="test")


async def fails(step: str, store: RedisStateStore) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(StateUnavailableError) as caught:
            await STEPS[step](store)
    assert caught.value.step == step
    assert caught.value.reason


@retry(retry=retry_if_exception_type(StateUnavailableError), stop=stop_after_delay(PATIENCE_SECONDS), reraise=True)
async def again_if_late(step: Callable[[], Awaitable[T]]) -> T:
    """A busy machine may take longer than the limit of these stores: then the step is made again, as stages do."""
    return await step()


async def one_life(store: RedisStateStore, request_id: str) -> None:
    # Repeated, where the client lost its connection and sent the call once more.
    admission = await again_if_late(lambda: store.admit(arrival(request_id), ROOMY))
    assert admission in (Admitted(1), Admitted(1, repeated=True))
    claim = await again_if_late(lambda: store.claim(request_id, owner="w", lease_ms=LEASE_MS, token=request_id))
    assert isinstance(claim, Claimed)
    assert await again_if_late(lambda: store.settle(claim.lease, State.COMPLETED, b"x")) is None


@pytest.mark.parametrize("step", STEPS)
async def test_each_step_fails_while_the_server_is_dead_and_works_after_its_restart(
    own_redis: RedisProcess, step: str
) -> None:
    """kill -9 and a restart without data: the same store object needs no help to go on."""
    store = store_of(own_redis)
    await asyncio.gather(*(one_life(store, f"before-{number}") for number in range(20)))
    await asyncio.to_thread(own_redis.kill)
    for _ in range(2):
        await fails(step, store)
    await asyncio.to_thread(own_redis.start)
    await asyncio.gather(*(one_life(store, f"after-{number}") for number in range(20)))
    await store.close()


@pytest.mark.parametrize("step", STEPS)
async def test_each_step_fails_in_time_while_the_server_hangs(own_redis: RedisProcess, step: str) -> None:
    """Its machine is stuck, and the connection stands: nobody waits for ever, and it works once it answers again."""
    store = store_of(own_redis)
    await one_life(store, "before")
    own_redis.freeze()
    for _ in range(2):
        await fails(step, store)
    own_redis.thaw()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await one_life(store, "after")
    await store.close()


async def test_a_crowd_of_calls_fails_together_while_the_server_hangs(own_redis: RedisProcess) -> None:
    """Those that wait behind others are bounded by the same time, and none of them is left over."""
    store = store_of(own_redis)
    await one_life(store, "before")
    own_redis.freeze()
    async with asyncio.timeout(PATIENCE_SECONDS):
        answers = await asyncio.gather(
            *(store.admit(arrival(f"r{number}"), ROOMY) for number in range(500)), return_exceptions=True
        )
    assert all(isinstance(answer, StateUnavailableError) for answer in answers)
    own_redis.thaw()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await one_life(store, "after")
    await store.close()


async def test_a_claim_whose_reply_was_lost_is_repeated_without_a_lost_call(own_redis: RedisProcess) -> None:
    """The server carries out what it was sent while it hung: the same token then gets that very lease."""
    store = store_of(own_redis)
    await one_life(store, "before")  # which loads the scripts
    await store.admit(arrival("r1"), ROOMY)
    token = uuid4().hex
    own_redis.freeze()
    with pytest.raises(StateUnavailableError):
        await store.claim("r1", owner="w", lease_ms=LEASE_MS, token=token)
    own_redis.thaw()
    own_redis.wait_until(lambda client: client.hget("{sluice:test:0}:request:r1", "state") == "processing")
    with own_redis.client() as admin:
        fence = admin.hget("{sluice:test:0}:request:r1", "fence")
    async with asyncio.timeout(PATIENCE_SECONDS):
        claim = await store.claim("r1", owner="w", lease_ms=LEASE_MS, token=token)
    assert isinstance(claim, Claimed)
    assert claim.lease == Lease(request_id="r1", fence=int(fence or 0), attempt=1, version=2)
    assert claim.lost_calls == ()
    await store.close()


async def test_a_settle_whose_reply_was_lost_is_repeated_and_wins(own_redis: RedisProcess) -> None:
    """The winner is told that it won, so the outcome is published; and it is counted once."""
    store = store_of(own_redis)
    await one_life(store, "before")  # which loads the scripts
    await store.admit(arrival("r1"), ROOMY)
    claim = await store.claim("r1", owner="w", lease_ms=LEASE_MS)
    assert isinstance(claim, Claimed)
    own_redis.freeze()
    with pytest.raises(StateUnavailableError):
        await store.settle(claim.lease, State.COMPLETED, b"x")
    own_redis.thaw()
    own_redis.wait_until(lambda client: client.hget("{sluice:test:0}:request:r1", "state") == "completed")
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await store.settle(claim.lease, State.COMPLETED, b"x") is None
    assert await store.outstanding() == (0, 0)
    await store.close()


async def test_work_goes_on_when_a_restart_lost_everything(own_redis: RedisProcess) -> None:
    """A lease taken before still brings its outcome home, a task still finds a lease, and no fence is used twice."""
    store = store_of(own_redis)
    await store.admit(arrival("r1"), ROOMY)
    before = await store.claim("r1", owner="w", lease_ms=LEASE_MS)
    assert isinstance(before, Claimed)
    with own_redis.client() as admin:
        admin.config_set("save", "")
        admin.config_set("appendonly", "no")
    await asyncio.to_thread(own_redis.kill)
    for left_over in own_redis.folder.glob("dump.rdb"):
        left_over.unlink()
    await asyncio.to_thread(own_redis.start)
    after = await store.claim("r1", owner="v", lease_ms=LEASE_MS)
    assert isinstance(after, Claimed)
    assert after.history_missing
    assert after.lease.fence > before.lease.fence
    assert after.lease.version > before.lease.version
    blocked = Settled(State.PROCESSING, after.lease.version, None)
    assert await store.settle(before.lease, State.COMPLETED, b"x") == blocked
    assert await store.settle(after.lease, State.COMPLETED, b"y") is None
    assert await store.outstanding() == (0, 0)
    await store.close()


async def test_scripts_that_the_server_forgot_are_loaded_again(own_redis: RedisProcess) -> None:
    """After a failover or SCRIPT FLUSH the hash of a script is unknown: callers do not notice, however many."""
    store = store_of(own_redis, RedisSettings(timeout_seconds=PATIENCE_SECONDS, max_connections=8))
    for round_number in range(3):
        ids = [f"{round_number}-{number}" for number in range(100)]
        with own_redis.client() as admin:
            admin.script_flush()
        await asyncio.gather(*(store.admit(arrival(request_id), ROOMY) for request_id in ids))
        claims = await asyncio.gather(*(store.claim(request_id, owner="w", lease_ms=LEASE_MS) for request_id in ids))
        leases = [claim.lease for claim in claims if isinstance(claim, Claimed)]
        assert len(leases) == 100
        ends = await asyncio.gather(*(store.settle(lease, State.COMPLETED, b"x") for lease in leases))
        assert ends == [None] * 100
    await store.close()


async def test_a_cluster_node_that_dies_takes_only_its_shards_with_it(own_cluster: list[RedisProcess]) -> None:
    """Requests of the other nodes go on, those of the dead one fail in time, and work again after its restart."""
    settings = CLUSTER_SETTINGS.model_copy(update={"timeout_seconds": 1.0, "shards": 16})
    store = store_of(own_cluster[0], settings)
    ids = [f"r{number}" for number in range(48)]

    async def admit_all(request_ids: list[str]) -> list[str]:
        """Those that failed."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            steps = (store.admit(arrival(request_id), ROOMY) for request_id in request_ids)
            answers = await asyncio.gather(*steps, return_exceptions=True)
        assert all(isinstance(answer, Admitted | StateUnavailableError) for answer in answers)
        return [name for name, answer in zip(request_ids, answers, strict=True) if not isinstance(answer, Admitted)]

    await asyncio.gather(*(one_life(store, f"before-{request_id}") for request_id in ids))
    await asyncio.to_thread(own_cluster[2].kill)
    layout = KeyLayout(prefix=settings.key_prefix, namespace="test", shards=settings.shards)
    first_dead_slot = SLOTS * 2 // 3
    dead = {name for name in ids if key_slot(layout.request(name).encode()) >= first_dead_slot}
    assert 0 < len(dead) < len(ids)
    failed = await admit_all(ids)
    async with asyncio.timeout(60):
        # The cluster client closes connections of living nodes as well when it looks for the dead one.
        while not dead.issuperset(failed):
            failed = await admit_all(failed)
    assert set(failed) == dead
    await asyncio.to_thread(own_cluster[2].start)
    async with asyncio.timeout(60):
        while failed:
            failed = await admit_all(failed)
    await store.close()
