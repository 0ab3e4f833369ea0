"""The feed and the whole bridge, with a real Kafka and fresh topics for each test."""

import asyncio
import socket
from datetime import UTC, datetime
from typing import Any, Self

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewPartitions
from bridge_deployment import CODEC, KAFKA_WAIT_SECONDS, PARTITIONS, Deployment, by_the_bridge, running
from bridge_support import WireClient, connected, delta, status_event, until

from schemas.base import Record
from schemas.vocabulary import State

pytestmark = pytest.mark.integration


async def test_statuses_and_deltas_of_kafka_reach_a_client(deployment: Deployment) -> None:
    """A request is seen from queued to completed with its text, through Kafka and a WebSocket."""
    await deployment.create_topics()
    async with running(deployment) as run, connected(run.bridge) as client:
        assert (await client.push("hello"))["feed"] == "live"
        await client.command("subscribe", request_ids=["a"], deltas=True)
        for version, state in enumerate((State.QUEUED, State.PROCESSING), 1):
            await deployment.write(deployment.topics.status, status_event("a", state, version))
            assert (await client.push("status"))["event"]["state"] == state
        await deployment.write(deployment.topics.deltas, delta("a", 0, "Hello"))
        assert (await client.push("delta"))["text"] == "Hello"
        await deployment.write(deployment.topics.status, status_event("a", State.COMPLETED, 3))
        assert (await client.push("status"))["event"]["state"] == "completed"


async def test_a_bridge_that_starts_knows_the_last_minutes_and_no_more(deployment: Deployment) -> None:
    """What was written within the replayed time is in the first snapshot; what is older is not."""
    await deployment.create_topics()
    long_ago = datetime.fromtimestamp(datetime.now(UTC).timestamp() - 3600, UTC)
    await deployment.write(deployment.topics.status, status_event("old"), at=long_ago)
    for number in range(20):
        await deployment.write(deployment.topics.status, status_event(f"new-{number}"))
    async with running(deployment, replay_seconds=600) as run, connected(run.bridge) as client:
        await client.command("subscribe", all=True)
        ids = {event["request_id"] for event in (await client.push("snapshot"))["requests"]}
        assert ids == {f"new-{number}" for number in range(20)}


async def test_undecodable_records_are_counted_and_passed_over(deployment: Deployment) -> None:
    """Bytes that are no status stop nothing, nor do values that break the contract, nor tombstones."""
    await deployment.create_topics()
    async with running(deployment) as run, connected(run.bridge) as client:
        await client.command("subscribe", all=True)
        for broken in (b"", b"\xc3\x01nonsense", CODEC.encode(status_event("a"))[:-1]):
            await deployment.write(deployment.topics.status, broken)
        await deployment.write(deployment.topics.status, status_event("good"))
        await deployment.write(deployment.topics.status, status_event("good"))
        assert (await client.push("status"))["event"]["request_id"] == "good"
        topic = deployment.topics.status
        await until(lambda: run.events(topic, "undecodable") == 3, what="three undecodable records are counted")
        await until(lambda: run.events(topic, "stale") == 1, what="the repeat is counted")
        assert run.events(topic, "fresh") == 1


async def test_a_bridge_waits_for_topics_that_do_not_exist_yet(deployment: Deployment) -> None:
    """It serves, is not ready, tells its clients, and goes live once the topics are there."""
    async with running(deployment, wait_until_ready=False) as run, connected(run.bridge) as client:
        await until_feed(client, "away")
        assert not run.bridge.ready
        await deployment.create_topics()
        await until_feed(client, "live")
        assert run.bridge.ready


async def test_partitions_that_are_added_are_read_as_well(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a topic grew, records in its new partitions arrive, and nothing is told twice."""
    monkeypatch.setattr("websocket_bridge.feed.METADATA_MAX_AGE_MS", 500)
    await deployment.create_topics()
    topic = deployment.topics.status
    async with running(deployment) as run, connected(run.bridge) as client:
        await client.command("subscribe", all=True)
        await deployment.write(topic, status_event("before"))
        assert (await client.push("status"))["event"]["request_id"] == "before"
        await deployment.admin.create_partitions({topic: NewPartitions(total_count=PARTITIONS + 1)})
        await send_to_partition(deployment.bootstrap, topic, status_event("after"), PARTITIONS)
        assert (await client.push("status"))["event"]["request_id"] == "after"
        assert run.events(topic, "stale") == 0


async def test_an_outage_of_kafka_is_told_and_survived(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network to Kafka is cut: clients are told so, and what was written meanwhile arrives once it is back."""
    await deployment.create_topics()
    async with CuttableRoute(deployment.bootstrap) as route:
        route.take_over(monkeypatch)
        async with running(deployment) as run, connected(run.bridge) as client:
            await client.command("subscribe", all=True)
            await deployment.write(deployment.topics.status, status_event("before"))
            await client.push("status")
            await route.cut()
            await until_feed(client, "away")
            await deployment.write(deployment.topics.status, status_event("meanwhile"))
            assert run.bridge.ready
            await route.mend()
            assert (await client.push("status", seconds=KAFKA_WAIT_SECONDS))["event"]["request_id"] == "meanwhile"
            await until_feed(client, "live")
            assert run.events(deployment.topics.status, "stale") == 0


async def until_feed(client: WireClient, feed: str) -> None:
    """Waits until the bridge says this of its view of Kafka, in its greeting or later."""
    if client.feed == "untold":
        await client.push("hello")
    while client.feed != feed:
        await client.push("feed", seconds=KAFKA_WAIT_SECONDS)


async def send_to_partition(bootstrap: str, topic: str, record: Record, partition: int) -> None:
    """With a producer of its own, for the test's one may not know of a new partition yet."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        await producer.send_and_wait(topic, CODEC.encode(record), partition=partition)
    finally:
        await producer.stop()


class CuttableRoute:
    """A TCP relay in front of a broker. `take_over` sends the bridge's connections to the broker through it."""

    def __init__(self, bootstrap: str) -> None:
        host, port = bootstrap.split(":")
        self._host, self._broker_port = host, int(port)
        self._port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    def take_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        direct = loop.create_connection

        async def by_relay(factory: Any, host: str, port: int, **options: Any) -> Any:
            is_broker = by_the_bridge.get() and (host, port) == (self._host, self._broker_port)
            return await direct(factory, host, self._port if is_broker else port, **options)

        monkeypatch.setattr(loop, "create_connection", by_relay)

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._relay, self._host, self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        self._writers.clear()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = socket.create_connection((self._host, self._broker_port))
        sock.setblocking(False)
        far_reader, far_writer = await asyncio.open_connection(sock=sock)
        self._writers |= {writer, far_writer}
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer), return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


async def test_topics_that_were_made_anew_are_read_from_their_beginning(deployment: Deployment) -> None:
    """Tokens of before are a gap and no wrong answer; what came since is resumed, each once."""
    await deployment.create_topics()
    topic = deployment.topics.status
    async with running(deployment) as run:
        async with connected(run.bridge) as client:
            await client.command("subscribe", all=True)
            for number in range(9):
                await deployment.write(topic, status_event(f"old-{number}"))
            old_token = [await client.push("status") for _ in range(9)][-1]["resume"]
            await deployment.make_anew(topic)
            await deployment.write(topic, status_event("new-0"))
            new = await client.push("status", seconds=KAFKA_WAIT_SECONDS)
            assert new["event"]["request_id"] == "new-0"
            await until_feed(client, "live")
        await deployment.write(topic, status_event("new-1"))
        async with connected(run.bridge) as client:
            answer = await client.command("resume", token=old_token, subscriptions=[{"all": True}])
            assert (answer["recovered"], answer["gap"]) == (False, "invalid")
        async with connected(run.bridge) as client:
            answer = await client.command("resume", token=new["resume"], subscriptions=[{"all": True}])
            assert (answer["recovered"], answer["events"]) == (True, 1)
            assert (await client.push("status"))["event"]["request_id"] == "new-1"
