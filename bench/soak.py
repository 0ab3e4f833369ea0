"""The live view under churn: connections that come and go, slow readers, and frames from a fuzzer, for some minutes.

Shows that memory stays flat, that no client that keeps to the protocol misses an end, and that nothing is wrong in the
log. The bridge is the real role in its own process, with bounds so small that they are reached.

    make soak SOAK_ARGS="--minutes 30"
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import aiohttp
import psutil
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from bench.live_client import LiveClient, at_work
from bench.soak_clients import Nuisances
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
from sluice.commands.interrupts import Interrupts
from sluice.role_process import RoleFailedError, RoleProcess
from sluice.stack import ports

REQUESTS_PER_SECOND = 20.0
PIECES = 5
SAMPLE_EVERY_SECONDS = 0.5
MINUTE = 60.0
CATCH_UP_SECONDS = 60
MAY_GROW = 1.10
MAY_GROW_BYTES = 8 * 1024 * 1024
EXPECTED_LOG_EVENTS = frozenset({"bridge_has_no_ticket_keys", "bridge_closes_client"})
COMPLAINTS_SHOWN = 10

EXIT_PROBLEMS = 1
EXIT_INTERRUPTED = 130
_EXAMPLES = """
examples:
  python -m bench.soak                       two minutes, as CI runs it
  python -m bench.soak --minutes 30          the whole soak
  python -m bench.soak --minutes 5 --json    for programs; progress goes to standard error

exit codes: 0 all was well; 1 there was a problem; 130 interrupted
"""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Sample:
    """Of the bridge: resident memory, and the share of one core that it took since the sample before."""

    at_seconds: float
    rss_mib: float
    cpu_percent: float


@dataclass
class Report:
    """What came of it. `problems` is empty where all was well."""

    seconds: float
    requests: int = 0
    connections: int = 0
    fuzzed: int = 0
    ends_awaited: int = 0
    ends_lost: int = 0
    told_twice: int = 0
    log_complaints: list[str] = field(default_factory=list)
    closes: dict[str, float] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def by_minute(self) -> list[tuple[int, float, float]]:
        """Minute, median memory in MiB, mean CPU in percent of a core."""
        minutes: dict[int, list[Sample]] = {}
        for sample in self.samples:
            minutes.setdefault(int(sample.at_seconds // MINUTE), []).append(sample)
        return [
            (
                minute,
                statistics.median(sample.rss_mib for sample in samples),
                statistics.mean(sample.cpu_percent for sample in samples),
            )
            for minute, samples in minutes.items()
        ]


class Soak:
    """One run against one bridge."""

    def __init__(self, settings: Settings, port: int, seconds: float, seed: int, say: Say) -> None:
        self.report = Report(seconds)
        self._settings = settings
        self._port = port
        self._began_at = time.monotonic()
        self._codec = SingleObjectCodec()
        self._ended: set[str] = set()
        self._random = random.Random(seed)
        self._say = say
        self._nuisances = Nuisances(
            port, draw=self._random, request_id=self._some_request, goes_on=lambda: self._elapsed < seconds
        )

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began_at

    def _some_request(self) -> str:
        return f"soak-{self._random.randrange(max(1, self.report.requests))}"

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
                for work in self._nuisances.works():
                    tasks.create_task(work)
            await self._check_told(steady)
        self.report.connections = self._nuisances.counts.connections
        self.report.fuzzed = self._nuisances.counts.fuzzed
        self._check_memory()

    async def _write(self, producer: Producer) -> None:
        lives: set[asyncio.Task[None]] = set()
        while self._elapsed < self.report.seconds:
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

    async def _sample(self, role: RoleProcess) -> None:
        process = psutil.Process(role.pid)
        process.cpu_percent()  # the first one is since for ever
        minute = 0
        counts = self._nuisances.counts
        while self._elapsed < self.report.seconds:
            await asyncio.sleep(SAMPLE_EVERY_SECONDS)
            role.check()
            rss_mib = round(process.memory_info().rss / 2**20, 1)
            self.report.samples.append(Sample(round(self._elapsed, 1), rss_mib, process.cpu_percent()))
            if self._elapsed // MINUTE > minute:
                minute, (_, memory, cpu) = minute + 1, self.report.by_minute()[-2]
                self._say(
                    f"minute {minute}: {memory:.1f} MiB, {cpu:.0f} % of a core, {self.report.requests:,} requests,"
                    f" {counts.connections:,} connections, {counts.fuzzed:,} malformed"
                )

    async def _check_told(self, clients: list[LiveClient]) -> None:
        report = self.report
        wanted = {("status", request_id, 3, 0) for request_id in self._ended}
        wanted |= {("result", request_id, 3, 0) for request_id in self._ended}
        report.ends_awaited = len(wanted) * len(clients)

        def missing() -> int:
            return sum(len(wanted.difference(client.told)) for client in clients)

        try:
            async with asyncio.timeout(CATCH_UP_SECONDS):
                while missing():  # noqa: ASYNC110 - clients only note
                    await asyncio.sleep(0.5)
        except TimeoutError:
            report.ends_lost = missing()
            report.problems.append(f"steady clients miss {report.ends_lost} of {report.ends_awaited} ends")
        for client in clients:
            twice = len(client.told) - len(set(client.told))
            report.told_twice += twice
            if twice:
                report.problems.append(f"{twice} pushes came twice")
            gaps = [answer["gap"] for answer in client.answers if answer.get("gap")]
            if gaps:
                report.problems.append(f"a steady client met gaps: {gaps}")

    def _check_memory(self) -> None:
        samples = [sample.rss_mib for sample in self.report.samples]
        quarter = len(samples) // 4
        before, after = statistics.median(samples[quarter : 2 * quarter]), statistics.median(samples[-quarter:])
        if after > before * MAY_GROW + MAY_GROW_BYTES / 2**20:
            self.report.problems.append(f"memory grew from {before} to {after} MiB")


async def soak(
    settings: Settings, seconds: float, folder: Path, *, seed: int = 0, say: Say = lambda _line: None
) -> Report:
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
        run = Soak(settings, port, seconds, seed, say)
        await run.run(role)
        report = run.report
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{role.ops_port}/metrics") as page:
            report.closes = _closes(await page.text())
        if "1011" in report.closes:
            report.problems.append("connections were left over: closed with 1011 long after their client had gone")
    finally:
        code = await role.stop()
    if code != 0:
        report.problems.append(f"the bridge ended with exit code {code}")
    report.log_complaints = complaints(log_path.read_text(errors="replace"))
    report.problems += [f"in the log: {line}" for line in report.log_complaints[:COMPLAINTS_SHOWN]]
    return report


def _closes(metrics: str) -> dict[str, float]:
    lines = (line for line in metrics.splitlines() if line.startswith("sluice_bridge_closes_total{"))
    return {line.split('"')[1]: float(line.rsplit(" ", 1)[1]) for line in lines}


def complaints(log: str) -> list[str]:
    """Lines that are not JSON (as those of an exception), that are errors, or warnings that nobody expects."""
    found = []
    for line in log.splitlines():
        try:
            fields = json.loads(line)
        except ValueError:
            found.append(line[:500])
            continue
        if fields.get("level") not in {"info", "debug"} and fields.get("event") not in EXPECTED_LOG_EVENTS:
            found.append(line[:500])
    return found


def show(report: Report, console: Console) -> None:
    """Memory by the minute, what was done to the bridge, and what is wrong."""
    table = Table(title="the bridge, by the minute", title_justify="left")
    for column in ("minute", "memory, MiB", "CPU, % of a core"):
        table.add_column(column, justify="right")
    for minute, memory, cpu in report.by_minute():
        table.add_row(f"{minute + 1}", f"{memory:.1f}", f"{cpu:.0f}")
    console.print(table)
    closes = ", ".join(f"{code}: {count:,.0f}" for code, count in sorted(report.closes.items())) or "none"
    console.print(
        f"{report.requests:,} requests; {report.connections:,} connections that came and went;"
        f" {report.fuzzed:,} malformed frames and commands; closed by the bridge: {closes}"
    )
    console.print(
        f"lost terminal events and results: {report.ends_lost:,} of {report.ends_awaited:,};"
        f" told twice: {report.told_twice:,}; complaints in the log: {len(report.log_complaints):,}"
    )
    for problem in report.problems:
        console.print(problem, style="red", markup=False)
    console.print("FAILED" if report.problems else "passed", style="bold red" if report.problems else "bold green")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=2.0, help="of churn (2)")
    parser.add_argument("--seed", type=int, default=0, help="draws what the clients do (0)")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object")
    given = parser.parse_args()
    if given.minutes <= 0:
        parser.error("--minutes has to be above 0")
    raise SystemExit(_run(given.minutes * MINUTE, given.seed, is_json=given.as_json))


def _run(seconds: float, seed: int, *, is_json: bool) -> int:
    progress = Console(stderr=True)

    def say(line: str) -> None:
        progress.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)

    try:
        with (
            Interrupts(lambda: say("stopping everything ...")) as interrupts,
            stack.start(ephemeral=True, on_progress=say) as running,
            tempfile.TemporaryDirectory(prefix="sluice-soak-") as folder,
        ):
            settings = Settings(
                kafka_bootstrap=running.kafka_bootstrap,
                redis_url=SecretStr(running.redis_url),
                topic_prefix=f"soak-{uuid4().hex[:8]}.",
                topic_partitions=3,
            )
            report = interrupts.run(soak(settings, seconds, Path(folder), seed=seed, say=say))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (RoleFailedError, stack.StackError) as error:
        progress.print(f"{error}", style="red", markup=False)
        return EXIT_PROBLEMS
    if is_json:
        print(json.dumps(asdict(report), indent=1))
    else:
        show(report, Console())
    return EXIT_PROBLEMS if report.problems else 0


if __name__ == "__main__":
    main()
