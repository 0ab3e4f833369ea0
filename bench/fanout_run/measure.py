"""The blocks: for each number of connections all ways stand, and take turns."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.fanout_run.child import ChildError
from bench.fanout_run.results import Block, Broadcasts, Memory, Pushes, Report
from bench.fanout_run.ways import Way, bridge, floor, hop, producer_for, request_id_of
from bench.measuring import CpuMeter, OthersMeter, listening_pid
from connectors.settings import Settings

WARM_UP_SECONDS = 2.0
SETTLE_SECONDS = 3.0
"""After thousands of connections came: until memory and timers have settled."""
BROADCASTS_PER_BLOCK = 5
BROADCASTS_PER_SECOND = 2.0
CONNECTIONS_PER_SECOND = 500
"""Roughly; for the estimate alone."""

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """One run. `seconds` is the length of one way's block."""

    clients: Sequence[int]
    rates: Sequence[float]
    blocks: int
    seconds: float

    @property
    def about_minutes(self) -> float:
        pushes = len(self.rates) * 3 * (self.blocks * self.seconds + WARM_UP_SECONDS)
        broadcasts = 2 * (self.blocks + 1) * BROADCASTS_PER_BLOCK / BROADCASTS_PER_SECOND
        around = 2 * SETTLE_SECONDS + 10
        connecting = 2 * sum(self.clients) / CONNECTIONS_PER_SECOND
        return (len(self.clients) * (pushes + broadcasts + around) + connecting) / 60


class Standing:
    """All ways at once, each with as many connections; the floor first, the bridge last."""

    def __init__(self, clients: int, ways: tuple[Way, Way, Way], broker: int | None) -> None:
        self.clients = clients
        self.ways = ways
        self.floor, _, self.bridge = ways
        pids = (os.getpid(), broker, *(way.pid for way in ways), *(way.listeners.pid for way in ways))
        self._pids = [pid for pid in pids if pid is not None]

    async def connect(self) -> Memory:
        """What the connections take, each client of the bridge following its own request."""
        own = [{"request_ids": [request_id_of(number)]} for number in range(self.clients)]
        grown = {}
        for way, subscriptions in ((self.floor, None), (self.bridge, own)):
            before = _rss(way)
            await way.listeners.ask("connect", count=self.clients)
            if subscriptions is not None:
                await way.listeners.ask("follow", subscriptions=subscriptions)
            await asyncio.sleep(SETTLE_SECONDS)
            grown[way.name] = (_rss(way) - before) // self.clients
        return Memory(clients=self.clients, bytes_per_connection=grown)

    async def block(self, way: Way, sending: Coroutine[Any, Any, None], deliveries: int) -> Block:
        """Has events sent, and waits until all of them were heard."""
        await way.listeners.ask("listen")
        server = CpuMeter({} if way.pid is None else {way.name: way.pid})
        others = OthersMeter(self._pids)
        server.start()
        others.start()
        await sending
        heard = await way.listeners.ask("heard", deliveries=deliveries)
        block = Block(
            microseconds=heard["microseconds"],
            deliveries=deliveries,
            cpu_seconds=sum(server.stop().values()),
            others_percent=others.stop(),
        )
        if heard.get("lost"):
            raise ChildError(f"{way.name}: {heard['lost']} of {self.clients} clients lost their connection")
        return block


async def measure(settings: Settings, options: Options, folder: Path, say: Say) -> Report:
    """All of it. Raises `ChildError` where clients were lost or events did not come."""
    report = Report()
    for clients in options.clients:
        say(f"{clients:,} connections: starting a bare server, a consumer and a bridge, and connecting ...")
        async with _standing(settings, clients, folder) as standing:
            report.memory.append(await standing.connect())
            for rate in options.rates:
                report.pushes.append(await _pushes(standing, rate, options, say))
            report.broadcasts.append(await _broadcasts(standing, options, say))
    return report


@asynccontextmanager
async def _standing(settings: Settings, clients: int, folder: Path) -> AsyncIterator[Standing]:
    async with (
        producer_for(settings) as producer,
        floor() as bare,
        hop(settings, producer, clients) as kafka,
        bridge(settings, producer, clients, folder) as ours,
    ):
        yield Standing(clients, (bare, kafka, ours), listening_pid(settings.kafka_bootstrap))


async def _pushes(standing: Standing, rate: float, options: Options, say: Say) -> Pushes:
    result = Pushes(clients=standing.clients, rate=rate)
    for way in standing.ways:
        await standing.block(way, way.push(rate, 1), 1)  # alone: a new topic may not have its leaders yet
        count = int(rate * WARM_UP_SECONDS)
        await standing.block(way, way.push(rate, count), count)
    count = int(rate * options.seconds)
    for number in range(options.blocks):
        for way in _in_turn(standing.ways, number):
            result.add(way.name, await standing.block(way, way.push(rate, count), count))
        say(f"  {rate:g} events/s, {number + 1} of {options.blocks}: {result.latest}")
    return result


async def _broadcasts(standing: Standing, options: Options, say: Say) -> Broadcasts:
    """After the pushes: now all clients of the bridge follow everything."""
    result = Broadcasts(clients=standing.clients)
    await standing.bridge.listeners.ask("follow", subscriptions=[{"all": True, "limit": 1}])
    ways = (standing.floor, standing.bridge)
    count, deliveries = BROADCASTS_PER_BLOCK, BROADCASTS_PER_BLOCK * standing.clients
    for way in ways:
        await standing.block(way, way.broadcast(BROADCASTS_PER_SECOND, count), deliveries)
    for number in range(options.blocks):
        for way in _in_turn(ways, number):
            result.add(way.name, await standing.block(way, way.broadcast(BROADCASTS_PER_SECOND, count), deliveries))
        say(f"  one event to all, {number + 1} of {options.blocks}: {result.latest}")
    return result


def _in_turn(ways: Sequence[Way], number: int) -> list[Way]:
    """Who begins changes with each block."""
    first = number % len(ways)
    return [*ways[first:], *ways[:first]]


def _rss(way: Way) -> int:
    assert way.pid is not None
    return int(psutil.Process(way.pid).memory_info().rss)
