"""The three ways of an event. Each is started by itself, and has its listeners."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from bench.fanout_run.child import Child
from bench.fanout_run.ears import made_now
from bench.measuring import at_rate
from connectors.kafka.client import client_options
from connectors.kafka.producer import Outgoing, Producer
from connectors.kafka.topics_admin import create_topics
from connectors.settings import Settings
from schemas.codec import SingleObjectCodec
from schemas.status import StatusEvent
from schemas.topics import HOUR_MS, TopicSpec
from schemas.vocabulary import State
from sluice.role_process import RoleProcess
from sluice.stack import ports

PARTITIONS = 3
FLOOR, HOP, BRIDGE = "bare websockets", "raw Kafka hop", "bridge"


class Way(Protocol):
    """`pid` is the process whose CPU counts; the hop has none."""

    name: str
    listeners: Child
    pid: int | None

    async def push(self, rate: float, count: int) -> None:
        """Each event to one client, in turn."""

    async def broadcast(self, rate: float, count: int) -> None:
        """Each event to all."""


class Floor:
    """The bare server, which makes its events itself."""

    name = FLOOR

    def __init__(self, server: Child, listeners: Child) -> None:
        self.listeners = listeners
        self.pid: int | None = server.pid
        self._server = server

    async def push(self, rate: float, count: int) -> None:
        await self._server.ask("push", rate=rate, count=count)

    async def broadcast(self, rate: float, count: int) -> None:
        await self._server.ask("broadcast", rate=rate, count=count)


class Written:
    """Events that this process writes to Kafka: for the bridge, or for a plain consumer. Request n is client n's."""

    def __init__(
        self, name: str, topic: str, *, producer: Producer, clients: int, listeners: Child, pid: int | None
    ) -> None:
        self.name = name
        self.listeners = listeners
        self.pid = pid
        self._topic = topic
        self._producer = producer
        self._versions = [0] * clients
        self._codec = SingleObjectCodec()

    async def push(self, rate: float, count: int) -> None:
        await at_rate(rate, count, self._write)

    async def broadcast(self, rate: float, count: int) -> None:
        await self.push(rate, count)

    async def _write(self, number: int) -> None:
        message, now = made_now(), datetime.now(UTC)
        client = number % len(self._versions)
        self._versions[client] += 1
        event = StatusEvent(
            type=State.PROCESSING.event_type,
            request_id=request_id_of(client),
            state=State.PROCESSING,
            state_version=self._versions[client],
            provider="simulated",
            model="reading-ease-1",
            occurred_at=now,
            submitted_at=now,
            message=message,
        )
        key, value = event.request_id.encode(), self._codec.encode(event)
        await self._producer.send(Outgoing(topic=self._topic, key=key, value=value))


def request_id_of(client: int) -> str:
    """The request that a client follows."""
    return f"fanout-{client}"


@asynccontextmanager
async def floor() -> AsyncIterator[Floor]:
    """A bare server, and its listeners' process."""
    async with Child("bench.fanout_run.floor") as server:
        port = (await server.ask("port"))["port"]
        async with Child("bench.fanout_run.sockets", str(port), "/") as listeners:
            yield Floor(server, listeners)


@asynccontextmanager
async def hop(settings: Settings, producer: Producer, clients: int) -> AsyncIterator[Written]:
    """A topic of its own, and a plain consumer's process."""
    topic = f"fanout-{uuid4().hex[:8]}.hop"
    spec = TopicSpec(name=topic, record=None, description="raw hop", retention_ms=HOUR_MS, partitions=PARTITIONS)
    await create_topics(settings, [spec])
    async with Child("bench.fanout_run.hop", settings.kafka_bootstrap, topic) as listeners:
        await listeners.ask("listen")
        yield Written(HOP, topic, producer=producer, clients=clients, listeners=listeners, pid=None)


@asynccontextmanager
async def bridge(settings: Settings, producer: Producer, clients: int, folder: Path) -> AsyncIterator[Written]:
    """The real role on topics of its own, and its listeners' process."""
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
        async with Child("bench.fanout_run.sockets", str(port), "/ws") as listeners:
            topic = mine.topics.status
            yield Written(BRIDGE, topic, producer=producer, clients=clients, listeners=listeners, pid=role.pid)
    finally:
        await role.stop()


def producer_for(settings: Settings) -> Producer:
    """The one that writes for both ways through Kafka."""
    return Producer(client_options(settings))
