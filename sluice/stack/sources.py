"""Turns the plan into services: one readable place that says which file serves which source."""

from pathlib import Path

from sluice.stack.external import ExternalService
from sluice.stack.kafka_docker import kafka_in_docker
from sluice.stack.kafka_java import kafka_under_java
from sluice.stack.local_service import LocalService
from sluice.stack.probes import Probe
from sluice.stack.redis_docker import redis_in_docker
from sluice.stack.redis_server import redis_process
from sluice.stack.resolve import Machine
from sluice.stack.service import Service
from sluice.stack.state import ServiceName, Source, StateDir


def kafka_service(source: Source, machine: Machine, *, state: StateDir, cache_dir: Path, probe: Probe) -> Service:
    """Kafka from this source; `probe` asks the user's own."""
    match source:
        case Source.EXTERNAL:
            return ExternalService(
                ServiceName.KAFKA,
                variable="KAFKA_BOOTSTRAP",
                address=machine.kafka_bootstrap or "",
                probe=probe,
            )
        case Source.DOCKER:
            return LocalService(kafka_in_docker(state), state)
        case Source.JAVA:
            return LocalService(kafka_under_java(machine, state, cache_dir), state)
        case Source.REDIS_SERVER:
            raise ValueError("redis-server is no Kafka")


def redis_service(source: Source, machine: Machine, *, state: StateDir, probe: Probe) -> Service:
    """Redis from this source; `probe` asks the user's own."""
    match source:
        case Source.EXTERNAL:
            return ExternalService(
                ServiceName.REDIS, variable="REDIS_URL", address=machine.redis_url or "", probe=probe
            )
        case Source.DOCKER:
            return LocalService(redis_in_docker(state), state)
        case Source.REDIS_SERVER:
            return LocalService(redis_process(machine, state), state)
        case Source.JAVA:
            raise ValueError("Java runs no Redis")
