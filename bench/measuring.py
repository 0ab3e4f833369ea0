"""Percentiles, open-loop pacing and CPU accounting for benchmarks."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
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


async def at_rate(rate: float, count: int, action: Callable[[int], Awaitable[None]]) -> float:
    """Starts `count` actions, `rate` a second, whether or not earlier ones are done. Returns the seconds it took."""
    began = time.monotonic()
    running: set[asyncio.Task[None]] = set()
    for number in range(count):
        due = began + number / rate
        delay = due - time.monotonic()
        if delay > 0:
            await asyncio.sleep(delay)
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


def listening_pid(address: str) -> int | None:
    """The local process that listens on `host:port`, if it can be told."""
    port = urlsplit(f"//{address.split(',', maxsplit=1)[0]}").port
    for connection in psutil.net_connections(kind="tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
            return connection.pid
    return None
