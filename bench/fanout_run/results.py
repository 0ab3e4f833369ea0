"""What was measured, and what it means against the aims. Pure.

A ratio is reckoned block by block, of ways that took turns, and the median of the blocks is what counts. The least and
the most say how far it can be trusted.
"""

import statistics
from dataclasses import dataclass, field
from typing import Any

from bench.fanout_run.ways import BRIDGE, FLOOR, HOP
from bench.measuring import Latency, latency_of

AIM_PUSH_RATIO = 2.0
AIM_PUSH_AT = (1_000, 500.0)
"""Connections, and events a second."""
AIM_BROADCAST_RATIO = 1.5
AIM_BROADCAST_AT = 5_000
AIM_BYTES_PER_CONNECTION = 20_000
AIM_BYTES_AT = 10_000


@dataclass(frozen=True, kw_only=True)
class Block:
    """One way for some seconds. Of each event the microseconds until the last of its listeners had it."""

    microseconds: list[int]
    deliveries: int
    cpu_seconds: float
    others_percent: float

    @property
    def latency(self) -> Latency:
        return latency_of([value / 1e6 for value in self.microseconds])


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Of the blocks of a run."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> "Ratio":
        return cls(median=round(statistics.median(values), 2), least=round(min(values), 2), most=round(max(values), 2))

    def __str__(self) -> str:
        return f"{self.median:.2f}x ({self.least:.2f}-{self.most:.2f})"


class Taken:
    """The blocks of each way, as they were taken in turn."""

    def __init__(self) -> None:
        self.blocks: dict[str, list[Block]] = {}

    def add(self, way: str, block: Block) -> None:
        self.blocks.setdefault(way, []).append(block)

    def latency(self, way: str) -> Latency:
        """Over all blocks."""
        return latency_of([value / 1e6 for block in self.blocks[way] for value in block.microseconds])

    def cpu_ms_per_1000(self, way: str) -> float:
        """CPU milliseconds of the server for 1,000 deliveries."""
        blocks = self.blocks[way]
        seconds = sum(block.cpu_seconds for block in blocks)
        return round(seconds * 1e6 / sum(block.deliveries for block in blocks), 1)

    @property
    def others_percent(self) -> float:
        """What others took of the machine, in the median block."""
        return round(statistics.median(b.others_percent for blocks in self.blocks.values() for b in blocks), 1)

    def _figures(self) -> dict[str, Any]:
        return {
            "ways": {
                way: {"latency_ms": self.latency(way), "cpu_ms_per_1000": self.cpu_ms_per_1000(way)}
                for way in self.blocks
            },
            "others_percent": self.others_percent,
        }


class Pushes(Taken):
    """Each event to one client."""

    def __init__(self, *, clients: int, rate: float) -> None:
        super().__init__()
        self.clients = clients
        self.rate = rate

    @property
    def ratio(self) -> Ratio:
        """p95 of the bridge over p95 of the floor plus p95 of the hop."""
        return Ratio.of([bridge / (floor + hop) for floor, hop, bridge in self._p95s()])

    @property
    def latest(self) -> str:
        floor, hop, bridge = self._p95s()[-1]
        return f"p95 floor {floor:.2f} + hop {hop:.2f} ms, bridge {bridge:.2f} ms: {bridge / (floor + hop):.2f}x"

    @property
    def figures(self) -> dict[str, Any]:
        return {"clients": self.clients, "rate": self.rate, "p95_ratio": self.ratio, **self._figures()}

    def _p95s(self) -> list[tuple[float, float, float]]:
        ways = [[block.latency.p95 for block in self.blocks[way]] for way in (FLOOR, HOP, BRIDGE)]
        return list(zip(*ways, strict=True))


class Broadcasts(Taken):
    """Each event to all clients, until the last has it."""

    def __init__(self, *, clients: int) -> None:
        super().__init__()
        self.clients = clients

    @property
    def ratio(self) -> Ratio:
        """Median of the bridge over that of the floor."""
        return Ratio.of([bridge / floor for floor, bridge in self._p50s()])

    @property
    def latest(self) -> str:
        floor, bridge = self._p50s()[-1]
        return f"p50 bare server {floor:.1f} ms, bridge {bridge:.1f} ms: {bridge / floor:.2f}x"

    @property
    def figures(self) -> dict[str, Any]:
        return {"clients": self.clients, "p50_ratio": self.ratio, **self._figures()}

    def _p50s(self) -> list[tuple[float, float]]:
        floor, bridge = ([block.latency.p50 for block in self.blocks[way]] for way in (FLOOR, BRIDGE))
        return list(zip(floor, bridge, strict=True))


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Resident bytes of a server for one more connection, by way."""

    clients: int
    bytes_per_connection: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Aim:
    """One of the aims, and whether it is met."""

    what: str
    bound: str
    found: str
    is_met: bool


@dataclass
class Report:
    """Of a whole run."""

    memory: list[Memory] = field(default_factory=list)
    pushes: list[Pushes] = field(default_factory=list)
    broadcasts: list[Broadcasts] = field(default_factory=list)

    @property
    def aims(self) -> list[Aim]:
        """Those that this run has figures for."""
        found = []
        for pushes in self.pushes:
            if (pushes.clients, pushes.rate) == AIM_PUSH_AT:
                what = "p95 at 500 events/s and 1,000 connections, over floor + hop"
                found.append(_ratio_aim(what, pushes.ratio, AIM_PUSH_RATIO))
        for broadcasts in self.broadcasts:
            if broadcasts.clients == AIM_BROADCAST_AT:
                what = "one event to 5,000 clients, over the bare server's"
                found.append(_ratio_aim(what, broadcasts.ratio, AIM_BROADCAST_RATIO))
        for memory in self.memory:
            if memory.clients == AIM_BYTES_AT:
                taken = memory.bytes_per_connection[BRIDGE]
                what, bound = "memory of each of 10,000 connections", f"{AIM_BYTES_PER_CONNECTION:,} B"
                is_met = taken <= AIM_BYTES_PER_CONNECTION
                found.append(Aim(what=what, bound=bound, found=f"{taken:,} B", is_met=is_met))
        return found

    @property
    def figures(self) -> dict[str, Any]:
        """For programs. Latencies in milliseconds."""
        return {
            "aims": self.aims,
            "memory": self.memory,
            "pushes": [pushes.figures for pushes in self.pushes],
            "broadcasts": [broadcasts.figures for broadcasts in self.broadcasts],
        }


def _ratio_aim(what: str, ratio: Ratio, bound: float) -> Aim:
    return Aim(what=what, bound=f"{bound:g}x", found=str(ratio), is_met=ratio.median <= bound)
