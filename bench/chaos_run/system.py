"""The system that is disturbed: a Kafka, a Redis, two providers and every role, all of them processes of this run.

Processes are killed by the pid that we were given for them, and by nothing else.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import redis.asyncio
from pydantic import SecretStr

from bench.chaos_run import clocks
from bench.chaos_run.load import MODEL, PROVIDERS
from bench.chaos_run.provider import Weather
from connectors.kafka.topics_admin import create_topics
from connectors.settings import Settings
from sluice import stack as local_stack
from sluice.commands.run import Role
from sluice.role_process import RoleFailedError, RoleProcess
from sluice.stack import ports

LEASE_SECONDS = 3.0
SESSION_SECONDS = 4.0
DRAIN_SECONDS = 5.0
SUPERVISION_SECONDS = 0.5
STOP_SECONDS = 45.0
SERVICE_SECONDS = 12.0
"""A little more than the longest time for which a breaker stays open, see `_catalogue`."""
MAX_ACCIDENTS = 20
_POLL_SECONDS = 0.1
_PREFIX = "chaos."
_PARTITIONS = 4
_CALLS_AT_ONCE = 16
_CALLS_AT_ONCE_IN_ALL = 24
"""Fewer than two workers could make: their shared limit has work to do, and what a crash leaks of it would show."""

_NOT_ITS_FAULT = ("cannot_start", "address already in use")
"""What a role says that finds no Kafka when it starts, or its port taken since it was chosen: it is to try again."""

Kind = tuple[str, ...]
"""The arguments of `sluice run`: what a process is."""


def kinds(providers: tuple[str, ...] = PROVIDERS) -> list[Kind]:
    """Every kind of process that this version of Sluice has, and that a request may need or be seen by."""
    alone = [(role.value,) for role in Role if role is not Role.LANE]
    return alone + [(Role.LANE.value, name) for name in providers]


class BrokenSystemError(Exception):
    """Its processes do not stay up: there is nothing to be learned from more rounds."""


@dataclass(kw_only=True)
class Member:
    """One process of the system. A supervisor replaces it when it dies, unless it is `leaving`.

    `clock`: its own, where this run steps clocks.
    """

    kind: Kind
    process: RoleProcess
    clock: clocks.SteppedClock | None = None
    leaving: bool = False

    @property
    def name(self) -> str:
        return f"{'-'.join(self.kind)} (pid {self.process.pid})"


@dataclass(frozen=True, kw_only=True)
class ProviderProcess:
    """A provider, and where it is told its weather."""

    process: subprocess.Popen[bytes]
    port: int
    network_port: int
    journal: Path

    def stop(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass(kw_only=True)
class ChaosSystem:
    """What a fault can reach. `accidents`: what went wrong that nobody had done on purpose.

    `tell` is called with each thing that is done to it. With a `faketime` library each process has a clock of its own.
    """

    folder: Path
    stack: local_stack.RunningStack
    settings: Settings
    providers: dict[str, ProviderProcess]
    tell: Callable[[str], None]
    faketime: Path | None = None
    members: list[Member] = field(default_factory=list)
    accidents: list[str] = field(default_factory=list)
    _spawned: int = 0

    def of(self, *roles: str) -> list[Member]:
        """Those that run as one of these roles, and are to stay."""
        return [member for member in self.members if member.kind[0] in roles and not member.leaving]

    def of_kind(self, kind: Kind) -> list[Member]:
        """Those that do the same work, and are to stay."""
        return [member for member in self.members if member.kind == kind and not member.leaving]

    def spawn(self, kind: Kind) -> Member:
        self._spawned += 1
        name = f"{self._spawned:03d}-{'-'.join(kind)}"
        environment, clock = self._environment(), None
        if self.faketime is not None:
            clock = clocks.SteppedClock(library=self.faketime, path=self.folder / f"{name}.clock")
            clock.step(0)
            environment |= clock.environment()
        process = RoleProcess(*kind, environment=environment, log_path=self.folder / f"{name}.log")
        member = Member(kind=kind, process=process, clock=clock)
        self.members.append(member)
        return member

    async def ready(self, members: Sequence[Member]) -> None:
        """Waits for them. Who does not come up is an accident, and its supervisor goes on trying."""
        for failed in await asyncio.gather(*(m.process.ready() for m in members), return_exceptions=True):
            if isinstance(failed, RoleFailedError):
                if not _is_to_try_again(str(failed)):
                    self.accidents.append(str(failed))
            elif isinstance(failed, BaseException):
                raise failed

    async def whole(self) -> None:
        """Waits until all who are there are ready, those too that had to be started twice.

        Raises `BrokenSystemError` after `MAX_ACCIDENTS`.
        """
        known: list[Member] = []
        while known != self.members:
            if len(self.accidents) > MAX_ACCIDENTS:
                raise BrokenSystemError("\n".join(self.accidents[-3:]))
            known = list(self.members)
            await self.ready(known)
            await asyncio.sleep(2 * SUPERVISION_SECONDS if self._dead() else 0)

    def _dead(self) -> list[Member]:
        return [member for member in self.members if member.process.process.poll() is not None and not member.leaving]

    def kill(self, member: Member) -> Member:
        """kill -9, and a new one in its place, which need not be ready yet."""
        self.end(member)
        return self.spawn(member.kind)

    def end(self, member: Member) -> None:
        """kill -9, and nobody in its place."""
        self.tell(f"kill -9: {member.name}")
        self._end(member)

    def end_all(self) -> None:
        """Whoever is there, frozen or not."""
        for member in list(self.members):
            member.process.signal(signal.SIGCONT)
            self._end(member)

    def _end(self, member: Member) -> None:
        member.process.kill()
        self._is_gone(member)

    def _is_gone(self, member: Member) -> None:
        self.members.remove(member)
        if member.clock is not None:
            clocks.forget(member.process.pid)

    async def terminate(self, members: list[Member]) -> None:
        """SIGTERM to all of them, and their ends. Any exit code but 0 is an accident."""
        self.tell(f"SIGTERM: {', '.join(member.name for member in members)}")
        for member in members:
            member.leaving = True
        codes = await asyncio.gather(*(member.process.stop(timeout_seconds=STOP_SECONDS) for member in members))
        for member, code in zip(members, codes, strict=True):
            self._is_gone(member)
            if code != 0:
                self.accidents.append(f"{member.name} was asked to stop and ended with exit code {code}")

    @asynccontextmanager
    async def frozen(self, member: Member) -> AsyncIterator[None]:
        """SIGSTOP for the length of the block, then SIGCONT."""
        self.tell(f"SIGSTOP: {member.name}")
        member.process.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.tell(f"SIGCONT: {member.name}")
            member.process.signal(signal.SIGCONT)

    @asynccontextmanager
    async def clocks_wrong(self, members: Sequence[Member], seconds: float) -> AsyncIterator[None]:
        """Their wall clocks are ahead by so much for the length of the block, or behind."""
        for member in members:
            self._step(member, seconds)
        try:
            yield
        finally:
            for member in members:
                self._step(member, 0)

    def _step(self, member: Member, seconds: float) -> None:
        if member.clock is None:
            raise RuntimeError("this run steps no clocks")
        self.tell(f"wall clock {f'{seconds:+.0f} s' if seconds else 'right'}: {member.name}")
        member.clock.step(seconds)

    async def supervise(self) -> None:
        """Replaces what died by itself, and notes it. Without end."""
        while True:
            await asyncio.sleep(SUPERVISION_SECONDS)
            for member in self._dead():
                last_words = _last_words(member)
                if not _is_to_try_again(last_words):
                    code = member.process.process.returncode
                    self.accidents.append(f"{member.name} ended by itself with exit code {code}: {last_words}")
                self._is_gone(member)
                self.spawn(member.kind)

    async def weather(self, provider: str, weather: Weather) -> None:
        self.tell(f"provider {provider}: {weather}")
        url = f"http://127.0.0.1:{self.providers[provider].port}/weather"
        async with aiohttp.ClientSession() as session, session.post(url, json=weather.as_json()) as response:
            response.raise_for_status()

    async def in_service(self, provider: str) -> None:
        """Waits until a call reaches it: not while a breaker is open. At most for `SERVICE_SECONDS`."""
        url = f"http://127.0.0.1:{self.providers[provider].port}/calls"

        async def calls() -> int:
            async with session.get(url) as response:
                return int(await response.text())

        with suppress(TimeoutError):
            async with asyncio.timeout(SERVICE_SECONDS), aiohttp.ClientSession() as session:
                before = await calls()
                while await calls() == before:  # noqa: ASYNC110 - it tells nobody of a call
                    await asyncio.sleep(_POLL_SECONDS)

    @asynccontextmanager
    async def redis(self) -> AsyncIterator["redis.asyncio.Redis"]:
        client = redis.asyncio.Redis.from_url(self.stack.redis_url)
        try:
            yield client
        finally:
            await client.aclose()

    def _environment(self) -> dict[str, str]:
        return {
            "KAFKA_BOOTSTRAP": self.settings.kafka_bootstrap,
            "REDIS_URL": self.settings.redis_url.get_secret_value(),
            "SLUICE_TOPIC_PREFIX": self.settings.topic_prefix,
            "SLUICE_TOPIC_PARTITIONS": str(self.settings.topic_partitions),
            "SLUICE_PROVIDERS_FILE": str(self.folder / "providers.toml"),
            "SLUICE_WORKER__LEASE_SECONDS": str(LEASE_SECONDS),
            "SLUICE_WORKER__SESSION_TIMEOUT_SECONDS": str(SESSION_SECONDS),
            "SLUICE_WORKER__DRAIN_SECONDS": str(DRAIN_SECONDS),
            "SLUICE_BRIDGE__PORT": "0",
        }


@asynccontextmanager
async def running_system(
    folder: Path, *, workers: int, seed: int, tell: Callable[[str], None], faketime: Path | None = None
) -> AsyncIterator[ChaosSystem]:
    """Everything up: `workers` processes of each kind, and a bridge. All is stopped in the end, however it ends."""
    environ = {name: value for name, value in os.environ.items() if name not in {"KAFKA_BOOTSTRAP", "REDIS_URL"}}
    stack = await asyncio.to_thread(local_stack.start, folder / "stack", environ=environ)
    providers: dict[str, ProviderProcess] = {}
    system: ChaosSystem | None = None
    supervising: asyncio.Task[None] | None = None
    try:
        for name in PROVIDERS:
            providers[name] = _start_provider(name, folder, seed)
        settings = Settings(
            kafka_bootstrap=stack.kafka_bootstrap,
            redis_url=SecretStr(stack.redis_url),
            topic_prefix=_PREFIX,
            topic_partitions=_PARTITIONS,
        )
        system = ChaosSystem(
            folder=folder, stack=stack, settings=settings, providers=providers, tell=tell, faketime=faketime
        )
        (folder / "providers.toml").write_text(_catalogue(providers))
        await create_topics(settings, settings.topics.specs(list(PROVIDERS)))
        await _await_providers(providers)
        # No request needs a bridge: one will do, to show that it lives.
        await system.ready([system.spawn(kind) for kind in kinds() for _ in range(_count(kind, workers))])
        if system.accidents:
            raise BrokenSystemError("\n".join(system.accidents))
        supervising = asyncio.create_task(system.supervise())
        yield system
    finally:
        if supervising is not None:
            supervising.cancel()
        if system is not None:
            system.end_all()
        for provider in providers.values():
            provider.stop()
        await asyncio.to_thread(stack.stop)


def _count(kind: Kind, workers: int) -> int:
    return 1 if kind[0] == Role.BRIDGE else workers


def _start_provider(name: str, folder: Path, seed: int) -> ProviderProcess:
    port, network_port = ports.choose(2)
    journal = folder / f"journal-{name}.jsonl"
    with (folder / f"provider-{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.chaos_run.provider", name, f"{port}", f"{network_port}", journal, f"{seed}"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return ProviderProcess(process=process, port=port, network_port=network_port, journal=journal)


async def _await_providers(providers: dict[str, ProviderProcess]) -> None:
    deadline = time.monotonic() + 30
    for provider in providers.values():
        while not (ports.answers(provider.port) and ports.answers(provider.network_port)):
            if time.monotonic() > deadline:
                raise TimeoutError("a provider did not come up within 30 s")
            await asyncio.sleep(0.05)


def _catalogue(providers: dict[str, ProviderProcess]) -> str:
    """Times are short, so that a silent network and an open breaker pass within a round."""
    return "\n".join(
        f'[providers.{name}]\ntype = "openai_compatible"\nmodels = ["{MODEL}"]\n'
        f'base_url = "http://127.0.0.1:{provider.network_port}/v1"\nconcurrency = {_CALLS_AT_ONCE}\n'
        f"[providers.{name}.timeouts]\nconnect_seconds = 2.0\nfirst_token_seconds = 6.0\nstall_seconds = 4.0\n"
        "total_seconds = 15.0\n"
        f"[providers.{name}.breaker]\nopen_seconds = 3.0\nmax_open_seconds = 10.0\n"
        f"[providers.{name}.limits]\nconcurrency = {_CALLS_AT_ONCE_IN_ALL}\n"
        for name, provider in providers.items()
    )


def _is_to_try_again(last_words: str) -> bool:
    return any(words in last_words for words in _NOT_ITS_FAULT)


def _last_words(member: Member) -> str:
    with suppress(OSError):
        return " ".join(member.process.log_path.read_text(errors="replace").split("\n")[-4:])[:600]
    return ""
