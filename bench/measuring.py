"""Percentiles, open-loop pacing and CPU accounting for benchmarks."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Percentiles in milliseconds."""

    count: int
    p50: float
    p95: float
    p99: float


def latency_of(seconds: Sequence[float]) -> Latency:
    """Nearest-rank percentiles of durations in seconds."""
    ordered = sorted(seconds)

    def rank(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 3)

    return Latency(count=len(ordered), p50=rank(0.50), p95=rank(0.95), p99=rank(0.99))


async def paced(rate: float, count: int) -> AsyncIterator[int]:
    """Numbers from 0, each when it is due at `rate` a second. One that is late does not delay those after it."""
    began = time.monotonic()
    for number in range(count):
        delay = began + number / rate - time.monotonic()
        if delay > 0:
            await asyncio.sleep(delay)
        yield number


async def at_rate(rate: float, count: int, action: Callable[[int], Awaitable[None]]) -> float:
    """Starts `count` actions, `rate` a second, whether or not earlier ones are done. Returns the seconds it took."""
    began = time.monotonic()
    running: set[asyncio.Task[None]] = set()
    async for number in paced(rate, count):
        task = asyncio.ensure_future(action(number))
        running.add(task)
        task.add_done_callback(running.discard)
    if running:
        await asyncio.gather(*running)
    return time.monotonic() - began


class CpuMeter:
    """CPU seconds that named processes use between `start` and `stop`."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._before: dict[str, float] = {}

    def start(self) -> None:
        self._before = {name: _cpu_seconds(process) for name, process in self._processes.items()}

    def stop(self) -> dict[str, float]:
        return {name: _cpu_seconds(process) - self._before[name] for name, process in self._processes.items()}


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


class OthersMeter:
    """The share of the machine's CPU, in percent, that processes other than these took between `start` and `stop`.

    A measurement is worth as much as this is small.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        self._ours = [psutil.Process(pid) for pid in pids]
        self._before = self._now()

    def start(self) -> None:
        self._before = self._now()

    def stop(self) -> float:
        machine, busy, ours = (after - before for after, before in zip(self._now(), self._before, strict=True))
        return round(max(0.0, busy - ours) / max(machine, 1e-9) * 100, 1)

    def _now(self) -> tuple[float, float, float]:
        """Seconds of CPU that the machine had, spent, and spent on our processes."""
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        # Of `times` those of guests are part of `user` already.
        machine = idle + times.user + times.nice + times.system + sum(getattr(times, n, 0.0) for n in _STOLEN)
        return machine, machine - idle, sum(map(_cpu_seconds, self._ours))


_STOLEN = ("irq", "softirq", "steal")


def listening_pid(address: str) -> int | None:
    """The local process that listens on `host:port`, if it can be told."""
    port = urlsplit(f"//{address.split(',', maxsplit=1)[0]}").port
    for connection in psutil.net_connections(kind="tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
            return connection.pid
    return None
