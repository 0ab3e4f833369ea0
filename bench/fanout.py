"""The live view: from an event written to Kafka until a client has it, over thousands of connections.

In the same run, on the same broker: the raw Kafka hop, and the floor, a bare `websockets` server fed in process.
Each client follows a request of its own; events go to one after the other. Then broadcasts: all follow everything.

    make bench-fanout BENCH_ARGS="--clients 1000,5000 --rate 500,2000 --json"
"""

import argparse
import asyncio
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from bench.fanout_clients import BareClient, connect_all
from bench.measuring import CpuMeter, Latency, at_rate, latency_of
from bench.overhead import raw_hop
from connectors.kafka.client import client_options
from connectors.kafka.producer import Outgoing, Producer
from connectors.kafka.topics_admin import create_topics
from connectors.settings import Settings
from schemas.codec import SingleObjectCodec
from schemas.status import StatusEvent
from schemas.vocabulary import State
from sluice import stack
from sluice.role_process import RoleProcess
from sluice.stack import ports

PARTITIONS = 3
BROADCASTS = 10
BROADCAST_EVERY_SECONDS = 1.0
WARM_UP = 200
SETTLE_SECONDS = 2.0
MESSAGE = re.compile(rb'"message": ?"([0-9.]+)"')

AIM_PUSH_RATIO = 2.0
AIM_BROADCAST_RATIO = 1.5
AIM_BYTES_PER_CONNECTION = 20_000


@dataclass
class Ears:
    """What clients heard: seconds from the moment in the message until they had it."""

    took: list[float] = field(default_factory=list)
    latest: dict[bytes, float] = field(default_factory=dict)
    count: int = 0

    def hear(self, _client: int, payload: bytes, now: float) -> None:
        found = MESSAGE.search(payload)
        if found is None:
            return
        self.count += 1
        seconds = now - float(found[1])
        self.took.append(seconds)
        self.latest[found[1]] = max(seconds, self.latest.get(found[1], 0.0))

    def clear(self) -> None:
        self.took, self.latest, self.count = [], {}, 0

    async def until(self, count: int) -> None:
        async with asyncio.timeout(120):
            while self.count < count:  # noqa: ASYNC110 - an event per frame would be part of what is measured
                await asyncio.sleep(0.02)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement of one server. Memory is per connection, on top of the process without any."""

    server: str
    clients: int
    rate: float | None
    push: Latency
    bytes_per_connection: int
    cpu_ms_per_1000: float


class Floor:
    """The bare server."""

    name = "bare websockets"
    path = "/"

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        self.port = port
        self.pid = process.pid

    def command(self, _number: int, *, everything: bool) -> dict[str, Any] | None:  # noqa: ARG002 - as the bridge's
        return None

    async def push(self, rate: float, count: int) -> None:
        await self._ask({"push": count, "rate": rate})

    async def broadcast(self, count: int) -> None:
        await self._ask({"broadcast": count, "every": BROADCAST_EVERY_SECONDS})

    async def _ask(self, asked: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        await asyncio.to_thread(self._process.stdout.readline)


class Bridge:
    """The real role, and a producer that writes what it shows."""

    name = "bridge"
    path = "/ws"

    def __init__(self, role: RoleProcess, port: int, producer: Producer, settings: Settings, clients: int) -> None:
        self.port = port
        self.pid = role.pid
        self._producer = producer
        self._settings = settings
        self._clients = clients
        self._versions = [0] * clients
        self._codec = SingleObjectCodec()

    def command(self, number: int, *, everything: bool) -> dict[str, Any] | None:
        what: dict[str, Any] = {"all": True, "limit": 1} if everything else {"request_ids": [f"fanout-{number}"]}
        return {"id": 1, "type": "subscribe", **what}

    async def push(self, rate: float, count: int) -> None:
        await at_rate(rate, count, self._write)

    async def broadcast(self, count: int) -> None:
        await at_rate(1 / BROADCAST_EVERY_SECONDS, count, self._write)

    async def _write(self, number: int) -> None:
        client = number % self._clients
        self._versions[client] += 1
        now = datetime.now(UTC)
        event = StatusEvent(
            type=State.PROCESSING.event_type,
            request_id=f"fanout-{client}",
            state=State.PROCESSING,
            state_version=self._versions[client],
            provider="simulated",
            model="reading-ease-1",
            occurred_at=now,
            submitted_at=now,
            message=f"{time.monotonic():.6f}",
        )
        key = event.request_id.encode()
        await self._producer.send(
            Outgoing(topic=self._settings.topics.status, key=key, value=self._codec.encode(event))
        )


@asynccontextmanager
async def floor(_settings: Settings, _folder: Path, _clients: int) -> AsyncIterator[Floor]:
    """A bare server as a child process."""
    process = _start_floor()
    assert process.stdout is not None
    try:
        yield Floor(process, int(await asyncio.to_thread(process.stdout.readline)))
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.to_thread(process.wait)


def _start_floor() -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.fanout_floor"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@asynccontextmanager
async def bridge(settings: Settings, folder: Path, clients: int) -> AsyncIterator[Bridge]:
    """The role as a child process, on topics of its own."""
    mine = settings.model_copy(update={"topic_prefix": f"fanout-{uuid4().hex[:8]}."})
    await create_topics(mine, mine.topics.specs(["simulated"]))
    (port,) = ports.choose(1)
    environment = {
        "KAFKA_BOOTSTRAP": mine.kafka_bootstrap,
        "SLUICE_TOPIC_PREFIX": mine.topic_prefix,
        "SLUICE_BRIDGE__PORT": str(port),
        "SLUICE_BRIDGE__ALLOW_ALL": "true",
        "SLUICE_BRIDGE__MAX_CONNECTIONS": str(clients + 10),
        "SLUICE_LOG__LEVEL": "warning",
    }
    role = RoleProcess("bridge", environment=environment, log_path=folder / f"bridge-{port}.log")
    try:
        await role.ready()
        async with Producer(client_options(mine)) as producer:
            yield Bridge(role, port, producer, mine, clients)
    finally:
        await role.stop()


async def measure_pushes(
    make: Any, settings: Settings, folder: Path, *, clients: int, rates: list[float], seconds: float
) -> list[Row]:
    """Latency, memory and CPU of one server with so many clients."""
    ears = Ears()
    rows = []
    async with make(settings, folder, clients) as server:
        before = _rss(server.pid)
        async with _connected(server, clients, ears, everything=False):
            grown = (_rss(server.pid) - before) // clients
            await server.push(100, WARM_UP)
            await ears.until(WARM_UP)
            for rate in rates:
                ears.clear()
                count = int(rate * seconds)
                meter = CpuMeter({"server": server.pid})
                meter.start()
                await server.push(rate, count)
                await ears.until(count)
                cpu = meter.stop()["server"]
                rows.append(
                    Row(
                        server=server.name,
                        clients=clients,
                        rate=rate,
                        push=latency_of(ears.took),
                        bytes_per_connection=grown,
                        cpu_ms_per_1000=round(cpu / count * 1e6, 2),
                    )
                )
    return rows


async def measure_broadcast(make: Any, settings: Settings, folder: Path, clients: int) -> Row:
    """From the event until the last client has it."""
    ears = Ears()
    async with make(settings, folder, clients) as server:
        before = _rss(server.pid)
        async with _connected(server, clients, ears, everything=True):
            grown = (_rss(server.pid) - before) // clients
            await server.broadcast(2)
            await ears.until(2 * clients)
            ears.clear()
            meter = CpuMeter({"server": server.pid})
            meter.start()
            await server.broadcast(BROADCASTS)
            await ears.until(BROADCASTS * clients)
            cpu = meter.stop()["server"]
    return Row(
        server=server.name,
        clients=clients,
        rate=None,
        push=latency_of(list(ears.latest.values())),
        bytes_per_connection=grown,
        cpu_ms_per_1000=round(cpu / (BROADCASTS * clients) * 1e6, 2),
    )


@asynccontextmanager
async def _connected(server: Any, count: int, ears: Ears, *, everything: bool) -> AsyncIterator[list[BareClient]]:
    commands = [server.command(number, everything=everything) for number in range(count)]
    clients = await connect_all(server.port, server.path, commands, ears.hear)
    await asyncio.sleep(SETTLE_SECONDS)
    try:
        yield clients
        lost = sum(client.is_lost for client in clients)
        if lost:
            raise RuntimeError(f"{lost} of {count} clients lost their connection")
    finally:
        for client in clients:
            client.close()


def _rss(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


async def run(
    settings: Settings, clients: list[int], rates: list[float], seconds: float, folder: Path
) -> dict[str, Any]:
    """All of it, as one report."""
    hops = {rate: await raw_hop(settings, rate, int(rate * min(seconds, 5))) for rate in rates}
    pushes: list[Row] = []
    broadcasts: list[Row] = []
    for count in clients:
        for make in (floor, bridge):
            pushes += await measure_pushes(make, settings, folder, clients=count, rates=rates, seconds=seconds)
            broadcasts.append(await measure_broadcast(make, settings, folder, count))
    return {"raw_hop": hops, "pushes": pushes, "broadcasts": broadcasts}


def show(report: dict[str, Any]) -> None:
    """Tables, with the aims."""
    console = Console(width=130)
    hops = Table(title="one raw Kafka hop, ms")
    for column in ("events/s", "p50", "p95", "p99"):
        hops.add_column(column, justify="right")
    for rate, hop in report["raw_hop"].items():
        hops.add_row(f"{rate:g}", str(hop.p50), str(hop.p95), str(hop.p99))
    console.print(hops)
    floors = {(row.clients, row.rate): row for row in report["pushes"] if row.server == Floor.name}
    table = Table(title=f"one event to one client, ms (aim: p95 within {AIM_PUSH_RATIO:g}x of floor + hop)")
    for column in ("server", "clients", "events/s", "p50", "p95", "p99", "ratio p95", "B/connection", "CPU ms/1,000"):
        table.add_column(column, justify="right")
    for row in report["pushes"]:
        bare = floors[row.clients, row.rate].push.p95 + report["raw_hop"][row.rate].p95
        ratio = f"{row.push.p95 / bare:.2f}" if row.server == Bridge.name else ""
        cells = (row.push.p50, row.push.p95, row.push.p99, ratio, f"{row.bytes_per_connection:,}", row.cpu_ms_per_1000)
        table.add_row(row.server, f"{row.clients:,}", f"{row.rate:g}", *map(str, cells))
    console.print(table)
    wholes = {row.clients: row for row in report["broadcasts"] if row.server == Floor.name}
    table = Table(title=f"one event to all, until the last has it, ms (aim: within {AIM_BROADCAST_RATIO:g}x)")
    for column in ("server", "clients", "p50", "p95", "ratio p50", "B/connection", "CPU ms/1,000"):
        table.add_column(column, justify="right")
    for row in report["broadcasts"]:
        ratio = f"{row.push.p50 / wholes[row.clients].push.p50:.2f}" if row.server == Bridge.name else ""
        cells = (row.push.p50, row.push.p95, ratio, f"{row.bytes_per_connection:,}", row.cpu_ms_per_1000)
        table.add_row(row.server, f"{row.clients:,}", *map(str, cells))
    console.print(table)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default="1000,5000,10000", help="connections, separated by commas")
    parser.add_argument("--rate", default="500,2000", help="events a second, separated by commas")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each measurement")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object")
    arguments = parser.parse_args()
    clients = [int(count) for count in arguments.clients.split(",")]
    rates = [float(rate) for rate in arguments.rate.split(",")]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, max(clients) + 1_000), most))
    progress = Console(stderr=True)
    with stack.start(on_progress=lambda line: progress.print(line, style="dim")) as running:
        settings = Settings(
            kafka_bootstrap=running.kafka_bootstrap,
            redis_url=SecretStr(running.redis_url),
            topic_prefix=f"fanout-{uuid4().hex[:8]}.",
            topic_partitions=PARTITIONS,
        )
        with tempfile.TemporaryDirectory(prefix="sluice-fanout-") as folder:
            report = asyncio.run(run(settings, clients, rates, arguments.seconds, Path(folder)))
    if arguments.as_json:
        report["raw_hop"] = {f"{rate:g}": asdict(hop) for rate, hop in report["raw_hop"].items()}
        print(json.dumps(report, default=asdict))
    else:
        show(report)


if __name__ == "__main__":
    main()
