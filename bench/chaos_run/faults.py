"""What befalls the system, one a round. Each returns when it is over; who was killed has been replaced by then."""

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from bench.chaos_run.load import PROVIDERS
from bench.chaos_run.network import Network
from bench.chaos_run.provider import Weather
from bench.chaos_run.system import LEASE_SECONDS, SESSION_SECONDS, ChaosSystem, Member, kinds
from sluice.stack.state import ServiceName, Source
from streams.own_claims import AWAY_SECONDS

Fault = Callable[[ChaosSystem, random.Random], Awaitable[None]]

CLEAR = Weather()
QUEUING = Weather(slowness=6)
"""Lanes get more than they can call, so that there is something to do while nothing new comes."""
RETRYING = Weather(errors=0.3)
"""Calls fail now and then, so that retries wait for their time while clocks are wrong."""
QUEUE_SECONDS = 2.0

SMALL_STEPS_SECONDS = (5.0, 20.0, 60.0)
LARGE_STEPS_SECONDS = (*SMALL_STEPS_SECONDS, 600.0)
"""By how much a wall clock may be wrong. Small: where requests wait for it, and the run with them."""


def _kill(*roles: str) -> Fault:
    async def kill(system: ChaosSystem, dice: random.Random) -> None:
        """kill -9 of one process of these roles."""
        system.kill(dice.choice(system.of(*roles)))

    return kill


async def _kill_everybody(system: ChaosSystem, _dice: random.Random) -> None:
    for member in list(system.members):
        system.kill(member)


async def _kill_one_of_each(system: ChaosSystem, dice: random.Random) -> None:
    for kind in kinds():
        system.kill(dice.choice(system.of_kind(kind)))


def _freeze(*roles: str) -> Fault:
    async def freeze(system: ChaosSystem, dice: random.Random) -> None:
        await _freeze_all(system, dice, [dice.choice(system.of(*roles))])

    return freeze


async def _freeze_one_of_each(system: ChaosSystem, dice: random.Random) -> None:
    await _freeze_all(system, dice, [dice.choice(system.of_kind(kind)) for kind in kinds()])


async def _freeze_all(system: ChaosSystem, dice: random.Random, struck: Sequence[Member]) -> None:
    """SIGSTOP until their leases have run out and others have taken them, then SIGCONT: they are zombies."""
    async with AsyncExitStack() as stack:
        for member in struck:
            await stack.enter_async_context(system.frozen(member))
        await asyncio.sleep(dice.uniform(1.5, 3) * LEASE_SECONDS)


async def _deploy(system: ChaosSystem, _dice: random.Random) -> None:
    """Every process is replaced, in two waves: the new one is ready before the old one gets its SIGTERM."""
    seen: dict[tuple[str, ...], int] = {}
    waves: tuple[list[Member], list[Member]] = ([], [])
    for member in system.members:
        seen[member.kind] = seen.get(member.kind, -1) + 1
        waves[seen[member.kind] % 2].append(member)
    for wave in waves:
        await system.ready([system.spawn(member.kind) for member in wave])
        # Who died meanwhile has been replaced already.
        await system.terminate([member for member in wave if member in system.members])


async def _rebalance_storm(system: ChaosSystem, dice: random.Random) -> None:
    """Workers join and leave, in order or not, faster than groups settle."""
    for _ in range(3):
        joined = [system.spawn(kind) for kind in (("intake",), ("lane", "alpha"))]
        await system.ready(joined)
        await asyncio.sleep(dice.uniform(0, 0.5))
        still_there = [member for member in joined if member in system.members]
        if dice.random() < 0.5:
            await system.terminate(still_there)
        else:
            for member in still_there:
                system.end(member)


async def _broker_restart(system: ChaosSystem, _dice: random.Random) -> None:
    system.tell("restart: Kafka")
    await asyncio.to_thread(system.stack.kafka.restart)


async def _broker_kill(system: ChaosSystem, _dice: random.Random) -> None:
    await _kill_broker(system)
    await _start_broker(system)


async def _kill_broker(system: ChaosSystem) -> None:
    system.tell("kill -9: Kafka")
    await asyncio.to_thread(system.stack.kafka.kill)


async def _start_broker(system: ChaosSystem) -> None:
    await asyncio.to_thread(system.stack.kafka.start)
    system.tell("back: Kafka")


async def _kill_redis(system: ChaosSystem) -> None:
    system.tell("kill -9: Redis")
    await asyncio.to_thread(system.stack.redis.kill)


async def _start_redis(system: ChaosSystem, having: str = "its data") -> None:
    await asyncio.to_thread(system.stack.redis.start)
    system.tell(f"back: Redis, with {having}")


async def _redis_kill(system: ChaosSystem, dice: random.Random) -> None:
    """Its append-only file brings everything back: Redis writes it before it replies."""
    await _kill_redis(system)
    await asyncio.sleep(dice.uniform(0, 1.5) * LEASE_SECONDS)
    await _start_redis(system)


async def _redis_flush(system: ChaosSystem, _dice: random.Random) -> None:
    """Everything is gone while connections stay."""
    system.tell("flushed: Redis")
    async with system.redis() as client:
        await client.flushall()


async def _redis_empty(system: ChaosSystem, dice: random.Random) -> None:
    """It dies, and comes back without its data."""
    await _kill_redis(system)
    await asyncio.sleep(dice.uniform(0, 1.5) * LEASE_SECONDS)
    shutil.rmtree(system.stack.state_dir / ServiceName.REDIS, ignore_errors=True)
    await _start_redis(system, having="nothing")
    if system.stack.redis.source is Source.DOCKER:  # its data are in a volume that only the engine can remove
        await _redis_flush(system, dice)


async def _redis_pause(system: ChaosSystem, dice: random.Random) -> None:
    """It holds every command until leases have run out, and carries them out then, whoever still waits for them."""
    pause_seconds = dice.uniform(1, 2) * LEASE_SECONDS
    system.tell(f"paused: Redis, for {pause_seconds:.1f} s")
    async with system.redis() as client:
        await client.client_pause(int(pause_seconds * 1000), all=True)
    await asyncio.sleep(pause_seconds)


async def _redis_away_kill_lane(system: ChaosSystem, dice: random.Random) -> None:
    """Redis is away for so long that lanes claim by themselves. One of them dies then, before anybody has heard of it.

    Its partitions move while Redis is away, or when it is back: at times the one, at times the other.
    """
    async with _everywhere(system, QUEUING):
        await asyncio.sleep(QUEUE_SECONDS)
        await _kill_redis(system)
        await asyncio.sleep(AWAY_SECONDS + dice.uniform(0.5, 3))
        system.kill(dice.choice(system.of("lane")))
        await asyncio.sleep(dice.uniform(0, 2) * SESSION_SECONDS)
        await _start_redis(system)


def _redis_flush_kill(*roles: str) -> Fault:
    async def flush_and_kill(system: ChaosSystem, dice: random.Random) -> None:
        """Redis loses everything, and a process of these roles dies: just before, or while it is read back."""
        async with _everywhere(system, QUEUING):
            await asyncio.sleep(QUEUE_SECONDS)
            steps = [_redis_flush, _kill(*roles)]
            for step in dice.sample(steps, len(steps)):
                await step(system, dice)
                await asyncio.sleep(dice.uniform(0, 1.5))

    return flush_and_kill


@asynccontextmanager
async def _everywhere(system: ChaosSystem, weather: Weather) -> AsyncIterator[None]:
    for name in PROVIDERS:
        await system.weather(name, weather)
    try:
        yield
    finally:
        for name in PROVIDERS:
            await system.weather(name, CLEAR)


def _wrong_clock(sign: int) -> Fault:
    async def step_clocks(system: ChaosSystem, dice: random.Random) -> None:
        """The wall clocks of a role, of one of its processes or of all, are wrong for a while, and right again.

        At times one of the role is killed meanwhile: partitions come to processes whose clock is wrong.
        """
        role = dice.choice(("intake", "lane", "control"))
        struck = system.of(role)
        if dice.random() < 0.5:
            struck = [dice.choice(struck)]
        # A retry is due by the clock of the lane that asks for it.
        steps = SMALL_STEPS_SECONDS if role == "lane" and sign > 0 else LARGE_STEPS_SECONDS
        async with _everywhere(system, RETRYING), system.clocks_wrong(struck, sign * dice.choice(steps)):
            await asyncio.sleep(dice.uniform(1, 3))
            if dice.random() < 0.5:
                system.kill(dice.choice(system.of(role)))
            await asyncio.sleep(dice.uniform(1, 2) * SESSION_SECONDS)

    return step_clocks


async def _power_cut(system: ChaosSystem, dice: random.Random) -> None:
    """Everything but the providers dies at once, and comes back with what it had on its disk."""
    await asyncio.gather(_kill_broker(system), _kill_redis(system), _kill_everybody(system, dice))
    await _start_redis(system)
    await _start_broker(system)


async def _loss_of_redis_and_roles(system: ChaosSystem, dice: random.Random) -> None:
    """Nothing is left but Kafka: nobody remembers a call, neither in Redis nor in a process."""
    await asyncio.gather(_redis_empty(system, dice), _kill_everybody(system, dice))


def _bad_weather(least_seconds: float, most_seconds: float, *kinds: Weather) -> Fault:
    async def weather(system: ChaosSystem, dice: random.Random) -> None:
        """One provider, or both, meet it for a while. Not before they are called: a breaker may be open still."""
        struck = dice.choice([[name] for name in PROVIDERS] + [list(PROVIDERS)])
        await asyncio.gather(*(system.in_service(name) for name in struck))
        for name in struck:
            await system.weather(name, dice.choice(kinds))
        await asyncio.sleep(dice.uniform(least_seconds, most_seconds))
        for name in struck:
            await system.weather(name, CLEAR)

    return weather


FAULTS: Mapping[str, Fault] = {
    "kill-intake": _kill("intake"),
    "kill-lane": _kill("lane"),
    "kill-control": _kill("control"),
    "kill-bridge": _kill("bridge"),
    "kill-one-of-each": _kill_one_of_each,
    "kill-everybody": _kill_everybody,
    "freeze-lane": _freeze("lane"),
    "freeze-intake": _freeze("intake"),
    "freeze-control": _freeze("control"),
    "freeze-one-of-each": _freeze_one_of_each,
    "deploy": _deploy,
    "rebalance-storm": _rebalance_storm,
    "broker-restart": _broker_restart,
    "broker-kill": _broker_kill,
    "redis-kill": _redis_kill,
    "redis-pause": _redis_pause,
    "redis-flush": _redis_flush,
    "redis-empty": _redis_empty,
    "redis-away-kill-lane": _redis_away_kill_lane,
    "redis-flush-kill-lane": _redis_flush_kill("lane"),
    "redis-flush-kill-control": _redis_flush_kill("control"),
    "power-cut": _power_cut,
    "all-but-kafka": _loss_of_redis_and_roles,
    "network-refused": _bad_weather(3, 6, Weather(network=Network.REFUSED)),
    "network-silent": _bad_weather(3, 8, Weather(network=Network.SILENT)),
    "answers-lost": _bad_weather(2, 4, Weather(network=Network.ANSWERS_LOST)),
    "provider-flapping": _bad_weather(
        3, 6, Weather(errors=0.5, cuts=0.1), Weather(errors=0.9), Weather(errors=0.2, cuts=0.4)
    ),
    "provider-slow": _bad_weather(3, 6, Weather(slowness=20)),
    "clock-ahead": _wrong_clock(+1),
    "clock-behind": _wrong_clock(-1),
}


def needs_clocks(name: str) -> bool:
    """Whether this fault can befall only processes that have a clock of their own."""
    return name.startswith("clock-")


def needs_role(name: str) -> str | None:
    """The role without which this fault has nobody to befall."""
    verb, _, role = name.partition("-")
    return role if verb in {"kill", "freeze"} and role not in {"everybody", "one-of-each"} else None


def sequence(names: list[str], *, rounds: int, seed: int) -> list[str]:
    """Which fault each round has: each of `names` once, in a drawn order, before any comes again."""
    dice = random.Random(f"faults-{seed}")
    drawn: list[str] = []
    while len(drawn) < rounds:
        drawn += dice.sample(names, len(names))
    return drawn[:rounds]
