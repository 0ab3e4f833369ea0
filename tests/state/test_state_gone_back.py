"""A store that came back with old data, and leases that it has lost: a call that was paid for stands, once."""

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from connectors.settings import RedisSettings
from connectors.state.base import Lease, Settled
from connectors.state.redis_store import RedisStateStore
from schemas.vocabulary import State
from tests.state.redis_process import RedisProcess
from tests.state.steps import LEASE_MS, admitted, claim, claimed, own, reschedule, seen
from tests.state.worlds import World, redis_world


async def forgotten_lease(world: World) -> Lease:
    """A claim that the store does not remember: it has gone back to before it."""
    await admitted(world)
    now_us = (world.now_ms() + 1000) * 1000
    return Lease(request_id="r1", fence=now_us, attempt=1, version=2)


async def test_the_end_of_a_forgotten_lease_stands(world: World) -> None:
    """A call that was cut off for it would be made again, and nobody would know of the first."""
    lease = await forgotten_lease(world)
    assert (await world.store.renew([lease], lease_ms=LEASE_MS)).lost == ()
    assert await world.store.settle(lease, State.COMPLETED, b"paid for") is None
    assert (await seen(world)).state is State.COMPLETED
    assert await world.store.settle(lease, State.COMPLETED, b"paid for") is None  # its reply was lost


async def test_the_next_try_of_a_forgotten_lease_stands(world: World) -> None:
    lease = await forgotten_lease(world)
    assert await reschedule(world, lease) is None
    assert (await seen(world)).state is State.RETRY_SCHEDULED


async def test_whoever_claimed_after_a_forgotten_lease_has_it(world: World) -> None:
    await admitted(world)
    ours = Lease(request_id="r1", fence=(world.now_ms() - 60_000) * 1000, attempt=1, version=2)
    theirs = (await claimed(world, version=1)).lease
    assert (await world.store.renew([ours], lease_ms=LEASE_MS)).lost == (ours,)
    refused = await world.store.settle(ours, State.COMPLETED, b"ours")
    assert isinstance(refused, Settled)
    assert not refused.state.is_terminal
    assert await world.store.settle(theirs, State.COMPLETED, b"theirs") is None


async def test_a_lease_of_an_earlier_life_is_not_taken_for_a_forgotten_one(world: World) -> None:
    lease = replace(await forgotten_lease(world), version=0)
    assert (await world.store.renew([lease], lease_ms=LEASE_MS)).lost == (lease,)
    assert isinstance(await world.store.settle(lease, State.COMPLETED, b"x"), Settled)


async def test_an_end_from_outside_goes_before_a_forgotten_lease(world: World) -> None:
    lease = await forgotten_lease(world)
    assert await world.store.end(await seen(world), State.EXPIRED, b"too late") is None
    assert (await world.store.renew([lease], lease_ms=LEASE_MS)).lost == (lease,)
    assert await world.store.settle(lease, State.COMPLETED, b"x") == Settled(State.EXPIRED, 2, b"too late")


@pytest.mark.parametrize("step", ["settle", "reschedule"])
async def test_a_workers_own_lease_stands_where_the_one_before_has_lapsed(world: World, step: str) -> None:
    """Its holder died while the store was away. Refused, the call would be made again, and nobody told of the first."""
    await admitted(world)
    dead = (await claimed(world, version=1)).lease
    lease = own(dead, fence=dead.fence + 1)
    refused = await world.store.settle(lease, State.COMPLETED, b"ours")
    assert isinstance(refused, Settled), "its holder may be alive"
    await world.let_pass(LEASE_MS + 1)
    if step == "settle":
        assert await world.store.settle(lease, State.COMPLETED, b"ours") is None
    else:
        assert await reschedule(world, lease) is None
    late = await world.store.settle(dead, State.COMPLETED, b"theirs")
    assert isinstance(late, Settled)


async def test_a_workers_own_lease_does_not_stand_once_a_later_claim_was_made(world: World) -> None:
    await admitted(world)
    dead = (await claimed(world, version=1)).lease
    await world.let_pass(LEASE_MS + 1)
    await claim(world, version=1, owner="b")
    await world.let_pass(LEASE_MS + 1)
    assert isinstance(await world.store.settle(own(dead, fence=dead.fence + 1), State.COMPLETED, b"x"), Settled)


async def test_a_store_tells_that_its_server_was_started_again(tmp_path: Path) -> None:
    """With the data that it had, but for the last steps, perhaps: until they are read back."""
    server = RedisProcess(tmp_path, "--appendonly", "yes", "--appendfsync", "always").start()
    async with redis_world(RedisSettings(timeout_seconds=10), server.url) as world:
        store = world.store
        assert await store.is_same_run()
        for _ in range(2):
            await admitted(world)
            server.kill()
            server.start()
            for _ in range(2):
                assert not await store.is_same_run()
            assert await store.is_restored()  # it was not emptied
            assert await store.outstanding() != (0, 0)
            await store.restored()
            assert await store.is_same_run()
    server.stop()


async def test_what_was_read_back_before_a_restart_does_not_count_for_the_run_after_it(tmp_path: Path) -> None:
    server = RedisProcess(tmp_path, "--appendonly", "yes", "--appendfsync", "always").start()
    async with redis_world(RedisSettings(timeout_seconds=10), server.url) as world:
        assert await world.store.is_restored()
        assert await world.store.is_same_run()
        server.kill()
        server.start()
        await world.store.restored()
        assert not await world.store.is_same_run()
    server.stop()


async def test_a_server_that_does_not_tell_its_run_is_taken_for_the_same(own_redis: RedisProcess) -> None:
    """An account without `+info`: losses are noticed by other means, or not at all."""
    with own_redis.client() as admin:
        rights = ["~{sluice:*", "+@read", "+@write", "+@scripting", "+@connection", "+time"]
        admin.execute_command("ACL", "SETUSER", "tight", "on", ">secret", *rights)
    url = own_redis.url.replace("redis://", "redis://tight:secret@")
    store = RedisStateStore.from_settings(RedisSettings(), SecretStr(url), namespace="n")
    assert await store.is_restored()
    for _ in range(2):
        assert await store.is_same_run()
        await store.restored()
    await store.close()
