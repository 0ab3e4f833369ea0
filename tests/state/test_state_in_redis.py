"""What is kept in Redis: keys of one shard together, none for ever, little for what has ended."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis.crc import key_slot

from connectors.settings import RedisSettings
from connectors.state.base import Arrival, Claimed, Ended, Lease, Limits, Renewal
from connectors.state.connect import connect
from connectors.state.keys import KeyLayout
from connectors.state.redis_store import RedisStateStore
from connectors.state.remembering import KEPT_IN_KAFKA_MS
from connectors.state.script_runner import Argument, ScriptName, ScriptRunner
from policy.lifecycle import Standing, Step, possible_steps
from schemas import LaneTask
from schemas.topics import Topics
from schemas.vocabulary import TERMINAL_STATES, State
from tests.state.every_step import every_step
from tests.state.worlds import RETENTION_SECONDS, RedisWorld, redis_world

ROOMY = Limits(max_requests=100_000, max_bytes=1024**3)
LEASE_MS = 60_000
HOUR_MS = 3_600_000
LUA_FOLDER = Path(__file__).parents[2] / "connectors" / "state" / "lua"
LIVE_STATES = set(State) - TERMINAL_STATES
REDRIVABLE = {state for state in State if Step.REDRIVE in possible_steps(Standing(state, 1))}
PRELUDE = LUA_FOLDER / "prelude.lua"
SCRIPTS = sorted(set(LUA_FOLDER.glob("*.lua")) - {PRELUDE})
KEY_NAMES = {
    "request",
    "load",
    "deadlines",
    "born",
    "restored",
    "run",
    "cancels",
    *(f"KEYS[{number}]" for number in range(1, 7)),
}


def arrival(request_id: str, *, now_ms: int = 0) -> Arrival:
    return Arrival(request_id=request_id, origin="llm.requests-0-1", size_bytes=100, deadline_ms=now_ms + HOUR_MS)


async def lease_of(world: RedisWorld, request_id: str, *, admit: bool = True) -> Lease:
    if admit:
        await world.store.admit(arrival(request_id, now_ms=world.now_ms()), ROOMY)
    claim = await world.store.claim(request_id, owner="worker-1", lease_ms=LEASE_MS)
    assert isinstance(claim, Claimed)
    return claim.lease


class RecordingRunner(ScriptRunner):
    """Notes the keys of each call."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls: list[tuple[ScriptName, tuple[str, ...]]] = []

    async def run(self, name: ScriptName, keys: Sequence[str], arguments: Sequence[Argument] = ()) -> Any:
        self.calls.append((name, tuple(keys)))
        return await super().run(name, keys, arguments)


async def test_the_keys_of_each_script_call_share_a_slot(one_redis: RedisWorld, redis_url: str) -> None:
    """So a Cluster runs it on one node, for every script and any number of requests."""
    settings = RedisSettings()
    runner = RecordingRunner(connect(settings, SecretStr(redis_url)), timeout_seconds=10, max_connections=8)
    store = RedisStateStore(runner, KeyLayout(prefix="sluice", namespace=one_redis.namespace, shards=16))
    for number in range(50):
        await every_step(store, f"r{number}")
    leases = []
    for number in range(100, 200):
        claim = await store.claim(f"r{number}", owner="w", lease_ms=LEASE_MS)
        assert isinstance(claim, Claimed)
        leases.append(claim.lease)
    assert await store.renew(leases, lease_ms=LEASE_MS) == Renewal()
    await store.confirm([Ended(lease.request_id, State.COMPLETED, lease.version + 1) for lease in leases])
    await store.close()

    assert {name for name, _ in runner.calls} == set(ScriptName) - {ScriptName.EXCHANGE}
    slots = [{key_slot(key.encode()) for key in keys} for _, keys in runner.calls]
    assert all(len(of_one_call) == 1 for of_one_call in slots)
    assert len(set.union(*slots)) == 16


def test_requests_spread_evenly_over_shards() -> None:
    """No shard gets more than a fifth above or below its share of ten thousand ids."""
    layout = KeyLayout(prefix="sluice", namespace="", shards=8)
    counts = [0] * 8
    for number in range(10_000):
        counts[layout.shard(f"request-{number}")] += 1
    assert all(1_000 < count < 1_500 for count in counts)


def test_deployments_do_not_share_keys() -> None:
    """Prefix, namespace and shard each make other keys, and cannot be mistaken for one another."""
    layouts = [
        KeyLayout(prefix="sluice", namespace=""),
        KeyLayout(prefix="sluice", namespace="demo."),
        KeyLayout(prefix="sluice:demo.", namespace=""),
        KeyLayout(prefix="other", namespace="demo."),
    ]
    keys = {layout.counted_request("r1") for layout in layouts}
    assert len(keys) == len(layouts)


async def test_two_namespaces_on_one_redis_do_not_meet(one_redis: RedisWorld, redis_url: str) -> None:
    """The same id is new to each of them, and each counts its own."""
    await one_redis.store.admit(arrival("r1", now_ms=one_redis.now_ms()), ROOMY)
    async with redis_world(RedisSettings(), redis_url) as other:
        assert (await lease_of(other, "r1", admit=False)).attempt == 1
        assert await other.store.outstanding() == (0, 0)
    assert await one_redis.store.outstanding() == (1, 100)


async def test_every_key_of_a_request_expires_by_itself(one_redis: RedisWorld) -> None:
    """Whatever became of it: a retention after its deadline or its end, or after Kafka has lost its task."""
    world = one_redis
    leases = {name: await lease_of(world, name) for name in ("working", "ended", "marked", "queued", "lost")}
    await lease_of(world, "history-missing", admit=False)
    await world.store.refuse(arrival("refused"), State.REJECTED, b"")
    await world.store.release(leases["queued"], called=False)
    await world.lose("lost")
    for name in ("ended", "marked", "lost"):
        await world.store.settle(leases[name], State.COMPLETED, b"x")
    await world.store.confirm([Ended("marked", State.COMPLETED, 3), Ended("unknown", State.FAILED, 9)])
    requests = [key for key in await world.keys() if ":request:" in key]
    assert len(requests) == 8
    for key in requests:
        is_alive = key.endswith(("working", "queued", "history-missing"))
        kept_ms = KEPT_IN_KAFKA_MS if is_alive else 0
        assert kept_ms < await world.time_to_live_ms(key) <= kept_ms + HOUR_MS + LEASE_MS + RETENTION_SECONDS * 1000


async def test_an_idle_deployment_leaves_no_counters_behind(one_redis: RedisWorld) -> None:
    """When the last request ends, only what expires by itself is left, and the time of the store's birth."""
    for name in ("r1", "r2"):
        await one_redis.store.settle(await lease_of(one_redis, name), State.COMPLETED, b"x")
    assert {key.rpartition(":")[2] for key in await one_redis.keys()} == {"born", "r1", "r2"}


async def test_what_is_left_of_a_published_request_is_small(one_redis: RedisWorld) -> None:
    """Few fields, in Redis' compact form: a million of them a day have to fit."""
    await one_redis.store.settle(await lease_of(one_redis, "r1"), State.COMPLETED, b"x" * 5_000)
    await one_redis.store.confirm([Ended("r1", State.COMPLETED, 3)])
    (key,) = [key for key in await one_redis.keys() if ":request:" in key]
    assert set(await one_redis.hash_of(key)) == {b"state", b"version", b"fence", b"origin", b"attempt"}
    assert await one_redis.encoding_of(key) in {"ziplist", "listpack"}


@pytest.mark.parametrize("path", [PRELUDE, *SCRIPTS], ids=lambda path: path.stem)
def test_scripts_touch_no_key_that_they_were_not_given(path: Path) -> None:
    """A key made up inside a script would be on another node of a Cluster, or outside of an ACL user's reach."""
    calls = re.findall(r"redis\.call\('(\w+)'(?:, ([\w\[\]]+))?", path.read_text())
    assert calls
    assert {first for command, first in calls if command != "TIME"} <= KEY_NAMES


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_know_the_states_of_the_vocabulary(path: Path) -> None:
    """Every state that a script names exists, and its terminal states are those of the lifecycle."""
    text = path.read_text()
    named = re.findall(r"(?:state|known\[1\]) [=~]= '(\w+)'|'HSET', request, 'state', '(\w+)'", text)
    assert {State(word) for words in named for word in words if word} <= LIVE_STATES
    for table in re.findall(r"TERMINAL = \{(.*)\}", text):
        assert set(re.findall(r"(\w+) = true", table)) == TERMINAL_STATES
    for table in re.findall(r"REDRIVABLE = \{(.*)\}", text):
        assert set(re.findall(r"(\w+) = true", table)) == REDRIVABLE


def test_every_script_is_called_and_every_call_has_a_script() -> None:
    """The folder and the names agree."""
    assert {path.stem for path in SCRIPTS} == set(ScriptName)


def test_requests_are_remembered_for_as_long_as_kafka_keeps_their_tasks() -> None:
    kept = [spec.retention_ms for spec in Topics().specs(["any"]) if spec.record is LaneTask]
    assert set(kept) == {KEPT_IN_KAFKA_MS}
    assert f"KEPT_IN_KAFKA_MS = {KEPT_IN_KAFKA_MS // 86_400_000} * 86400000" in PRELUDE.read_text()
