"""Starts and stops the two services together. The package's docstring shows its use."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from sluice.stack import docker_engine, locations, machine, running
from sluice.stack.errors import Cancelled
from sluice.stack.local_service import stop_recorded
from sluice.stack.own_probes import ask_kafka, ask_redis
from sluice.stack.probes import Probe
from sluice.stack.resolve import resolve
from sluice.stack.service import Condition, Launch, Progress, Service
from sluice.stack.sources import kafka_service, redis_service
from sluice.stack.state import ServiceName, Source, StateDir

# Longer than a first start takes that fetches Kafka over a slow line.
_START_LOCK_TIMEOUT_SECONDS = 900.0


def _silent(_message: str) -> None:
    """No progress wanted."""


@dataclass(frozen=True, kw_only=True)
class ExternalProbes:
    """How the user's own Kafka and Redis are asked whether they can be used."""

    kafka: Probe = ask_kafka
    redis: Probe = ask_redis


class RunningStack:
    """A Kafka and a Redis that answer. `stop` ends what this object started, and nothing else."""

    def __init__(self, *, kafka: Service, redis: Service, state: StateDir, ephemeral: bool) -> None:
        self.kafka = kafka
        self.redis = redis
        self.state_dir = state.path
        self._state = state
        self._ephemeral = ephemeral

    @property
    def kafka_bootstrap(self) -> str:
        return self.kafka.address

    @property
    def redis_url(self) -> str:
        return self.redis.address

    @property
    def services(self) -> tuple[Service, Service]:
        return self.kafka, self.redis

    @property
    def sources(self) -> dict[str, str]:
        """Where each service comes from, in words."""
        return {service.name.value: service.description for service in self.services}

    def environment(self) -> dict[str, str]:
        """The variables that lead a child process to this stack."""
        return {"KAFKA_BOOTSTRAP": self.kafka_bootstrap, "REDIS_URL": self.redis_url}

    def away(self) -> list[Service]:
        """The services run by us that run no more. Waits for a restart that is under way."""
        if not self._not_running():
            return []
        with self._state.locked(timeout_seconds=_START_LOCK_TIMEOUT_SECONDS):
            return self._not_running()

    def _not_running(self) -> list[Service]:
        ours = [service for service in self.services if service.source is not Source.EXTERNAL]
        return [service for service in ours if service.condition() is not Condition.RUNNING]

    def stop(self) -> list[str]:
        """Stop the services that this object started, and return the names of those that ran."""
        with self._state.locked():
            stopped = [s.name.label for s in self.services if s.started_here and s.stop()]
            if self._ephemeral:
                _remove_volumes(self._state)
        if self._ephemeral:
            shutil.rmtree(self.state_dir, ignore_errors=True)
        return stopped

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start(
    state_dir: Path | None = None,
    *,
    ephemeral: bool = False,
    on_progress: Progress = _silent,
    environ: Mapping[str, str] = os.environ,
    external_probes: ExternalProbes = ExternalProbes(),
) -> RunningStack:
    """Attach to the stack of this state directory, or start it on its old data. Returns when both answer.

    `ephemeral` takes a state directory of its own, which `stop` removes. `on_progress` is called from several
    threads. Raises `StackError`; what was started until then is stopped, its logs are left.
    """
    folder = Path(tempfile.mkdtemp(prefix="sluice-")) if ephemeral else state_dir
    state = StateDir((folder or locations.state_dir(environ)).absolute())
    cache_dir = locations.cache_dir(environ)
    with state.locked(timeout_seconds=_START_LOCK_TIMEOUT_SECONDS):
        facts = machine.look(environ, state, cache_dir)
        plan = resolve(facts)
        kafka = kafka_service(plan.kafka, facts, state=state, cache_dir=cache_dir, probe=external_probes.kafka)
        redis = redis_service(plan.redis, facts, state=state, probe=external_probes.redis)
        _ensure_together((kafka, redis), on_progress)
    return RunningStack(kafka=kafka, redis=redis, state=state, ephemeral=ephemeral)


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """What `stop_all` did."""

    stopped: tuple[str, ...]
    crashed: tuple[str, ...]
    purged: bool


def stop_all(state_dir: Path | None = None, *, purge: bool = False, environ: Mapping[str, str] = os.environ) -> Stopped:
    """Stop whatever the state file names, whoever started it; with `purge` remove its data as well."""
    state = StateDir((state_dir or locations.state_dir(environ)).absolute())
    if not state.path.is_dir():
        return Stopped(stopped=(), crashed=(), purged=False)
    stopped: list[str] = []
    crashed: list[str] = []
    purged = False
    with state.locked():
        for name in ServiceName:
            record = state.service(name)
            if record is not None and record.should_run:
                (stopped if stop_recorded(name, state) else crashed).append(name.label)
        if purge:
            _remove_volumes(state)
            purged = state.purge()
    return Stopped(stopped=tuple(stopped), crashed=tuple(crashed), purged=purged)


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Where a stack that runs can be reached."""

    kafka_bootstrap: str | None
    redis_url: str | None


def find_running(state_dir: Path | None = None, *, environ: Mapping[str, str] = os.environ) -> Addresses:
    """The user's addresses, else those of a local stack that runs; nothing is started or connected to."""
    state = StateDir((state_dir or locations.state_dir(environ)).absolute())
    return Addresses(
        kafka_bootstrap=environ.get("KAFKA_BOOTSTRAP") or _running_address(state, ServiceName.KAFKA),
        redis_url=environ.get("REDIS_URL") or _running_address(state, ServiceName.REDIS),
    )


def _running_address(state: StateDir, name: ServiceName) -> str | None:
    record = state.service(name)
    return record.address(name) if record is not None and running.is_alive(record) else None


def _ensure_together(services: tuple[Service, ...], on_progress: Progress) -> None:
    """Start in parallel. When one fails, or we are interrupted, what was started is stopped."""
    try:
        _ensure_in_parallel(services, Launch(on_progress=on_progress))
    except BaseException:
        for service in services:
            if service.started_here:
                service.stop()
        raise


def _ensure_in_parallel(services: tuple[Service, ...], launch: Launch) -> None:
    with ThreadPoolExecutor(len(services), thread_name_prefix="sluice-stack") as pool:
        futures = [pool.submit(service.ensure, launch) for service in services]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        except BaseException:
            launch.cancelled.set()
            raise
        if any(future.exception() for future in done):
            launch.cancelled.set()
    errors = [error for future in futures if (error := future.exception())]
    causes = [error for error in errors if not isinstance(error, Cancelled)]
    if errors:
        raise (causes or errors)[0]


def _remove_volumes(state: StateDir) -> None:
    for name, record in state.read().services.items():
        if record.source is Source.DOCKER:
            docker_engine.remove_volume(state.volume(name))
