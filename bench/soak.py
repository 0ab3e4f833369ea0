"""The live view under churn: connections that come and go, slow readers, and frames from a fuzzer, for some minutes.

Shows that memory stays flat, that no client that keeps to the protocol misses an end, and that nothing is wrong in the
log. The bridge is the real role in its own process, with bounds so small that they are reached.

    make soak SOAK_ARGS="--minutes 30"
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import psutil
from pydantic import SecretStr
from rich.console import Console
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from bench.live_client import LiveClient, at_work
from connectors.kafka.client import client_options
from connectors.kafka.producer import Outgoing, Producer
from connectors.kafka.topics_admin import create_topics
from connectors.settings import Settings
from schemas.base import Record
from schemas.codec import SingleObjectCodec
from schemas.delta import Delta
from schemas.result import LLMResult
from schemas.status import StatusEvent
from schemas.vocabulary import State
from sluice import stack
from sluice.role_process import RoleProcess
from sluice.stack import ports

REQUESTS_PER_SECOND = 20.0
PIECES = 5
CHURNING, SLOW, FUZZING = 20, 4, 6
SAMPLE_EVERY_SECONDS = 0.5
CATCH_UP_SECONDS = 60
MAY_GROW = 1.10
MAY_GROW_BYTES = 8 * 1024 * 1024
ENDINGS = (ConnectionClosed, InvalidHandshake, OSError, TimeoutError)
EXPECTED_LOG_EVENTS = frozenset({"bridge_has_no_ticket_keys", "bridge_closes_client"})


@dataclass
class Report:
    """What came of it. `problems` is empty where all was well."""

    seconds: float
    requests: int = 0
    connections: int = 0
    fuzzed: int = 0
    closes: dict[str, float] = field(default_factory=dict)
    rss_mib: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Soak:
    """One run against one bridge."""

    def __init__(self, settings: Settings, port: int, seconds: float, seed: int) -> None:
        self.report = Report(seconds)
        self._settings = settings
        self._port = port
        self._ends_at = time.monotonic() + seconds
        self._random = random.Random(seed)
        self._codec = SingleObjectCodec()
        self._ended: set[str] = set()

    @property
    def _goes_on(self) -> bool:
        return time.monotonic() < self._ends_at

    async def run(self, role: RoleProcess) -> None:
        """All at once until the time is over; then what steady clients were told is looked at."""
        steady = [LiveClient(self._port, [{"all": True, "deltas": True}]), LiveClient(self._port, [{"all": True}])]
        async with at_work(steady[0]), at_work(steady[1]), Producer(client_options(self._settings)) as producer:
            while not all(client.answers for client in steady):
                role.check()
                await asyncio.sleep(0.05)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write(producer))
                tasks.create_task(self._sample(role))
                for _ in range(CHURNING):
                    tasks.create_task(self._churn())
                for _ in range(SLOW):
                    tasks.create_task(self._read_slowly())
                for _ in range(FUZZING):
                    tasks.create_task(self._fuzz())
            await self._check_told(steady)
        self._check_memory()

    async def _write(self, producer: Producer) -> None:
        lives: set[asyncio.Task[None]] = set()
        while self._goes_on:
            task = asyncio.create_task(self._live(producer, f"soak-{self.report.requests}"))
            lives.add(task)
            task.add_done_callback(lives.discard)
            self.report.requests += 1
            await asyncio.sleep(1 / REQUESTS_PER_SECOND)
        await asyncio.gather(*lives)

    async def _live(self, producer: Producer, request_id: str) -> None:
        topics, now = self._settings.topics, datetime.now(UTC)

        async def send(topic: str, record: Record) -> None:
            await producer.send(Outgoing(topic=topic, key=request_id.encode(), value=self._codec.encode(record)))

        async def status(state: State, version: int, attempt: int) -> None:
            event = StatusEvent(
                type=state.event_type,
                request_id=request_id,
                tenant_id=f"tenant-{hash(request_id) % 3}",
                state=state,
                state_version=version,
                attempt=attempt,
                occurred_at=now,
                submitted_at=now,
            )
            await send(topics.status, event)

        await status(State.QUEUED, 1, 0)
        await status(State.PROCESSING, 2, 1)
        for seq in range(PIECES):
            await send(topics.deltas, Delta(request_id=request_id, attempt=1, seq=seq, text="word " * 10))
        await status(State.COMPLETED, 3, 1)
        result = LLMResult(
            request_id=request_id, status=State.COMPLETED, state_version=3, submitted_at=now, finished_at=now
        )
        await send(topics.results, result)
        self._ended.add(request_id)

    async def _churn(self) -> None:
        """Comes, follows something, reads a little, and goes, politely or not."""
        token: str | None = None
        while self._goes_on:
            try:
                async with self._connection() as connection:
                    self.report.connections += 1
                    selection = self._selection()
                    command = {"id": 1, "type": "subscribe", **selection}
                    if token is not None and self._random.random() < 0.5:
                        command = {"id": 1, "type": "resume", "token": token, "subscriptions": [selection]}
                    await connection.send(json.dumps(command))
                    for _ in range(self._random.randrange(1, 40)):
                        async with asyncio.timeout(2):
                            token = json.loads(await connection.recv()).get("resume", token)
                    if self._random.random() < 0.3:
                        connection.transport.abort()
            except ENDINGS:
                token = token if self._random.random() < 0.9 else None
            await asyncio.sleep(self._random.random() * 0.3)

    def _selection(self) -> dict[str, Any]:
        some_id = f"soak-{self._random.randrange(max(1, self.report.requests))}"
        return self._random.choice(
            [
                {"all": True},
                {"all": True, "deltas": True, "where": {"states": ["completed"]}},
                {"tenant_id": "tenant-1", "deltas": True},
                {"request_ids": [some_id, "soak-nobody"], "deltas": True},
                {"lanes": True},
                {"dead_letters": True},
            ]
        )

    async def _read_slowly(self) -> None:
        """Follows everything and takes nothing from the network."""
        while self._goes_on:
            try:
                async with self._connection(max_queue=1) as connection:
                    await connection.send('{"id": 1, "type": "subscribe", "all": true, "deltas": true}')
                    connection.transport.pause_reading()
                    await asyncio.sleep(min(10, max(0.1, self._ends_at - time.monotonic())))
                    connection.transport.abort()
            except ENDINGS:
                await asyncio.sleep(0.1)

    async def _fuzz(self) -> None:
        """Malformed commands, malformed frames, and bytes that are neither."""
        while self._goes_on:
            with contextlib.suppress(*ENDINGS, asyncio.IncompleteReadError):
                await self._random.choice([self._fuzz_commands, self._fuzz_bytes])()
            await asyncio.sleep(self._random.random() * 0.1)

    async def _fuzz_commands(self) -> None:
        async with self._connection() as connection:
            for _ in range(30):
                good = json.dumps({"id": 1, "type": "subscribe", **self._selection()})
                at = self._random.randrange(len(good))
                await connection.send(
                    self._random.choice(
                        [
                            good[:at],
                            good[:at] + chr(self._random.randrange(1, 0xD800)) + good[at:],
                            "[" * 5_000,
                            "x" * 70_000,
                        ]
                    )
                )
                self.report.fuzzed += 1

    async def _fuzz_bytes(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            if self._random.random() < 0.8:
                key = base64.b64encode(os.urandom(16)).decode()
                head = (
                    f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
                    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                    f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
                    "Sec-WebSocket-Protocol: sluice.v1\r\n\r\n"
                )
                writer.write(head.encode())
                async with asyncio.timeout(5):
                    await reader.readuntil(b"\r\n\r\n")
            for _ in range(self._random.randrange(1, 5)):
                writer.write(self._random.randbytes(self._random.randrange(1, 2_000)))
                await writer.drain()
                self.report.fuzzed += 1
        finally:
            writer.transport.abort()

    def _connection(self, **options: Any) -> Any:
        url = f"ws://127.0.0.1:{self._port}/ws"
        return connect(url, subprotocols=["sluice.v1"], proxy=None, max_size=None, open_timeout=10, **options)  # type: ignore[list-item]

    async def _sample(self, role: RoleProcess) -> None:
        process = psutil.Process(role.pid)
        while self._goes_on:
            role.check()
            self.report.rss_mib.append(round(process.memory_info().rss / 2**20, 1))
            await asyncio.sleep(SAMPLE_EVERY_SECONDS)

    async def _check_told(self, clients: list[LiveClient]) -> None:
        wanted = {("status", request_id, 3, 0) for request_id in self._ended}
        wanted |= {("result", request_id, 3, 0) for request_id in self._ended}
        try:
            async with asyncio.timeout(CATCH_UP_SECONDS):
                while not all(wanted <= set(client.told) for client in clients):  # noqa: ASYNC110 - clients only note
                    await asyncio.sleep(0.1)
        except TimeoutError:
            missing = [len(wanted - set(client.told)) for client in clients]
            self.report.problems.append(f"steady clients miss ends: {missing} of {len(wanted)}")
        for client in clients:
            if len(client.told) != len(set(client.told)):
                self.report.problems.append(f"{len(client.told) - len(set(client.told))} pushes came twice")
            gaps = [answer["gap"] for answer in client.answers if answer.get("gap")]
            if gaps:
                self.report.problems.append(f"a steady client met gaps: {gaps}")

    def _check_memory(self) -> None:
        samples = self.report.rss_mib
        quarter = len(samples) // 4
        before, after = statistics.median(samples[quarter : 2 * quarter]), statistics.median(samples[-quarter:])
        if after > before * MAY_GROW + MAY_GROW_BYTES / 2**20:
            self.report.problems.append(f"memory grew from {before} to {after} MiB")


async def soak(settings: Settings, seconds: float, folder: Path, *, seed: int = 0) -> Report:
    """Starts a bridge, lets all of it loose, and reports."""
    await create_topics(settings, settings.topics.specs(["simulated"]))
    (port,) = ports.choose(1)
    environment = {
        "KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "SLUICE_TOPIC_PREFIX": settings.topic_prefix,
        "SLUICE_BRIDGE__PORT": str(port),
        "SLUICE_BRIDGE__ALLOW_ALL": "true",
        "SLUICE_BRIDGE__REMEMBERED_REQUESTS": "200",
        "SLUICE_BRIDGE__REPLAY_BYTES": str(1024 * 1024),
        "SLUICE_BRIDGE__SEND_BUFFER_EVENTS": "300",
    }
    log_path = folder / "bridge.log"
    role = RoleProcess("bridge", environment=environment, log_path=log_path)
    try:
        await role.ready()
        run = Soak(settings, port, seconds, seed)
        await run.run(role)
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{role.ops_port}/metrics") as page:
            run.report.closes = _closes(await page.text())
        if "1011" in run.report.closes:
            run.report.problems.append("connections were left over: closed with 1011 long after their client had gone")
    finally:
        code = await role.stop()
    if code != 0:
        run.report.problems.append(f"the bridge ended with exit code {code}")
    run.report.problems += _complaints(log_path.read_text(errors="replace"))
    return run.report


def _closes(metrics: str) -> dict[str, float]:
    lines = (line for line in metrics.splitlines() if line.startswith("sluice_bridge_closes_total{"))
    return {line.split('"')[1]: float(line.rsplit(" ", 1)[1]) for line in lines}


def _complaints(log: str) -> list[str]:
    """Lines that are not JSON, that are errors, or warnings that nobody expects."""
    found = []
    for line in log.splitlines():
        try:
            fields = json.loads(line)
        except ValueError:
            found.append(line)
            continue
        if fields.get("level") not in {"info", "debug"} and fields.get("event") not in EXPECTED_LOG_EVENTS:
            found.append(line[:500])
    return [f"in the log: {line}" for line in found[:10]]


def main() -> None:
    """Entry point. Exit code 1 where there was a problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    progress = Console(stderr=True)
    with stack.start(on_progress=lambda line: progress.print(line, style="dim")) as running:
        settings = Settings(
            kafka_bootstrap=running.kafka_bootstrap,
            redis_url=SecretStr(running.redis_url),
            topic_prefix=f"soak-{uuid4().hex[:8]}.",
            topic_partitions=3,
        )
        with tempfile.TemporaryDirectory(prefix="sluice-soak-") as folder:
            report = asyncio.run(soak(settings, arguments.minutes * 60, Path(folder), seed=arguments.seed))
    shown = {**report.__dict__, "rss_mib": report.rss_mib[:: max(1, len(report.rss_mib) // 20)]}
    print(json.dumps(shown, indent=1))
    sys.exit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
