"""Coming back, with a real Kafka: bridges that die, bridges that take over, and what only Kafka still has."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from bridge_deployment import KAFKA_WAIT_SECONDS, Deployment, running
from bridge_support import SUBMITTED_AT, WireClient, connected, delta, status_event, until

from bench.live_client import LiveClient, at_work
from schemas.result import LLMResult
from schemas.vocabulary import State
from sluice.role_process import RoleProcess
from sluice.stack import ports

pytestmark = pytest.mark.integration

STREAMS = 8
PIECES = 60
PIECE_EVERY_SECONDS = 0.08


def result_of(request_id: str, version: int) -> LLMResult:
    return LLMResult(
        request_id=request_id,
        status=State.COMPLETED,
        state_version=version,
        submitted_at=SUBMITTED_AT,
        finished_at=SUBMITTED_AT + timedelta(seconds=1),
    )


async def one_stream(deployment: Deployment, request_id: str) -> None:
    """The life of one request: queued, processing, its pieces, its end."""
    topics = deployment.topics
    await deployment.write(topics.status, status_event(request_id, State.QUEUED, 1))
    await deployment.write(topics.status, status_event(request_id, State.PROCESSING, 2, attempt=1))
    for seq in range(PIECES):
        await deployment.write(topics.deltas, delta(request_id, seq, f"{seq} "))
        await asyncio.sleep(PIECE_EVERY_SECONDS)
    await deployment.write(topics.status, status_event(request_id, State.COMPLETED, 3, attempt=1))
    await deployment.write(topics.results, result_of(request_id, 3))


def whole_life(request_id: str) -> set[tuple[str, str, int, int]]:
    versions = {("status", request_id, version, 0) for version in (1, 2, 3)}
    return versions | {("delta", request_id, 1, seq) for seq in range(PIECES)} | {("result", request_id, 3, 0)}


async def test_a_bridge_killed_in_mid_stream_and_started_again_costs_no_event(
    deployment: Deployment, tmp_path: Path
) -> None:
    """kill -9 and a new process on the same port, twice, while answers stream: each client is told each event once."""
    await deployment.create_topics()
    (port,) = ports.choose(1)
    environment = {
        "KAFKA_BOOTSTRAP": deployment.bootstrap,
        "SLUICE_TOPIC_PREFIX": deployment.topics.prefix,
        "SLUICE_BRIDGE__PORT": str(port),
        "SLUICE_BRIDGE__ALLOW_ALL": "true",
    }

    def start() -> RoleProcess:
        return RoleProcess("bridge", environment=environment, log_path=tmp_path / "bridge.log")

    ids = [f"essay-{number}" for number in range(STREAMS)]
    everything = LiveClient(port, [{"all": True, "deltas": True}])
    mine = LiveClient(port, [{"request_ids": ids[:2], "deltas": True}])
    role = start()
    try:
        await role.ready()
        async with at_work(everything), at_work(mine):
            await until(lambda: len(everything.answers) == len(mine.answers) == 1, what="both follow")
            writing = asyncio.gather(*(one_stream(deployment, request_id) for request_id in ids))
            for life in (1, 2):
                told = len(everything.told)
                for client in (everything, mine):
                    await until(
                        lambda client=client, life=life: client.connections == life, what="it is back", seconds=60
                    )
                await until(lambda told=told: len(everything.told) > told, what="it streams", seconds=60)
                role.kill()
                role = start()
            await writing
            expected = set().union(*map(whole_life, ids))
            await until(lambda: set(everything.told) >= expected, what="all of it is told", seconds=KAFKA_WAIT_SECONDS)
            own = whole_life(ids[0]) | whole_life(ids[1])
            await until(lambda: set(mine.told) >= own, what="the own requests are told", seconds=KAFKA_WAIT_SECONDS)
    finally:
        await role.stop()
    for client, wanted in ((everything, expected), (mine, own)):
        assert sorted(client.told) == sorted(wanted)
        assert client.connections == 3
        assert [answer["recovered"] for answer in client.answers[1:]] == [True] * (client.connections - 1)


async def pushes_after(client: WireClient, count: int) -> list[str]:
    return [(await client.push("status"))["event"]["request_id"] for _ in range(count)]


async def test_another_bridge_takes_over_where_the_first_one_was(deployment: Deployment) -> None:
    """The token of one bridge means the same to the other, which has never seen the client."""
    await deployment.create_topics()
    topic = deployment.topics.status
    async with running(deployment) as one, running(deployment) as other:
        async with connected(one.bridge) as client:
            await client.command("subscribe", tenant_id="default")
            await deployment.write(topic, status_event("before"))
            token = (await client.push("status"))["resume"]
        for number in range(5):
            await deployment.write(topic, status_event(f"missed-{number}"))
        async with connected(other.bridge) as client:
            answer = await client.command("resume", token=token, subscriptions=[{"tenant_id": "default"}])
            assert answer["recovered"]
            await deployment.write(topic, status_event("after"))
            assert set(await pushes_after(client, 6)) == {*(f"missed-{number}" for number in range(5)), "after"}


async def test_what_is_older_than_the_log_is_read_back_from_kafka_once_for_all(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    """A bridge that began later than the token reads the rest back, in one go for all who come back at once."""
    await deployment.create_topics()
    topic = deployment.topics.status
    async with running(deployment) as run, connected(run.bridge) as client:
        await client.command("subscribe", all=True)
        token = (await client.push("snapshot"))["resume"]
    long_ago = datetime.now(UTC) - timedelta(seconds=300)
    for number in range(30):
        await deployment.write(topic, status_event(f"missed-{number}"), at=long_ago)
    async with running(deployment, replay_seconds=10) as late:
        clients = [connected(late.bridge) for _ in range(5)]
        opened = [await client.__aenter__() for client in clients]
        command = {"token": token, "subscriptions": [{"all": True}]}
        answers = await asyncio.gather(*(client.command("resume", **command) for client in opened))
        assert [(answer["recovered"], answer["events"]) for answer in answers] == [(True, 30)] * 5
        for client in opened:
            assert set(await pushes_after(client, 30)) == {f"missed-{number}" for number in range(30)}
        for client in clients:
            await client.__aexit__(None, None, None)


async def test_topics_that_were_made_anew_are_a_gap(deployment: Deployment) -> None:
    """Offsets that Kafka does not have (any more) cannot be told apart from lost ones: a gap, and a snapshot."""
    await deployment.create_topics()
    topic = deployment.topics.status
    async with running(deployment) as run, connected(run.bridge) as client:
        await client.command("subscribe", all=True)
        for number in range(20):
            await deployment.write(topic, status_event(f"r-{number}"))
        tokens = [(await client.push("status"))["resume"] for _ in range(20)]
    await deployment.admin.delete_topics(deployment.names)

    async def made_anew() -> None:
        while True:
            try:
                await deployment.create_topics()
            except Exception:  # noqa: BLE001 - deleting takes Kafka a moment
                await asyncio.sleep(0.1)
            else:
                return

    await asyncio.wait_for(made_anew(), KAFKA_WAIT_SECONDS)
    async with running(deployment) as run, connected(run.bridge) as client:
        answer = await client.command("resume", token=tokens[-1], subscriptions=[{"all": True}])
        assert (answer["recovered"], answer["gap"]) == (False, "invalid")
        assert (await client.push("snapshot"))["last"]
