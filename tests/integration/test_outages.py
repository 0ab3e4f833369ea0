"""The broker and Redis die in mid-run, and come back: nothing was acknowledged that was not written."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from connectors.settings import Settings
from schemas import LLMRequest
from schemas.request import Message
from schemas.vocabulary import Role, State
from sluice import stack as local_stack
from tests.integration.system import Outcome, System, running_system

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(180)]

REQUESTS = 400
CONCURRENCY = 16


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local_stack.RunningStack]:
    """A Kafka and a Redis that these tests may kill."""
    with local_stack.start(tmp_path_factory.mktemp("own-stack"), environ={}) as running:
        yield running


@pytest.fixture
def settings(own_stack: local_stack.RunningStack, prefix: str) -> Settings:
    return Settings(
        kafka_bootstrap=own_stack.kafka_bootstrap,
        redis_url=SecretStr(own_stack.redis_url),
        topic_prefix=prefix,
        topic_partitions=3,
    )


async def run_through(system: System, outage: asyncio.Task[None]) -> Outcome:
    requests = [
        LLMRequest(request_id=f"r-{number}", messages=[Message(role=Role.USER, content="x")])
        for number in range(REQUESTS)
    ]
    await system.send(requests)
    await outage
    ids = [request.request_id for request in requests]
    outcome = await system.ended(ids, timeout_seconds=90)
    outcome.assert_each_ended_once(ids)
    assert all(outcome.result(name).status is State.COMPLETED for name in ids)
    return outcome


async def test_redis_is_killed_and_comes_back(
    own_stack: local_stack.RunningStack, settings: Settings, tmp_path: Path
) -> None:
    """Workers wait for it, and keep the answers that they have: with leases that outlast it nobody is called twice."""
    options = {"SLUICE_WORKER__LEASE_SECONDS": "60"}
    async with running_system(settings, tmp_path, concurrency=CONCURRENCY, options=options) as system:
        await asyncio.gather(system.start("intake"), system.start("lane", "simulated"))

        async def outage() -> None:
            await system.called(100)
            await asyncio.to_thread(own_stack.redis.kill)
            await asyncio.to_thread(own_stack.redis.start)

        outcome = await run_through(system, asyncio.create_task(outage()))
    assert outcome.assert_extra_calls_are_flagged() == 0


async def test_lanes_go_on_while_redis_is_away(
    own_stack: local_stack.RunningStack, settings: Settings, tmp_path: Path
) -> None:
    """They call what they have by claims of their own; Redis back, the ends are noted there, and each ended once."""
    async with running_system(
        settings, tmp_path, concurrency=4, provider_options="latency_ms = 40\njitter = 0"
    ) as system:
        await asyncio.gather(system.start("intake"), system.start("lane", "simulated"), system.start("control"))

        async def outage() -> None:
            await system.called(60)
            await asyncio.to_thread(own_stack.redis.kill)
            # Four calls were in flight, and four more may have had their claims.
            await system.called(60 + 8 + 60)
            await asyncio.to_thread(own_stack.redis.start)

        outcome = await run_through(system, asyncio.create_task(outage()))
    outcome.assert_extra_calls_are_flagged()


async def test_the_broker_is_killed_and_comes_back(
    own_stack: local_stack.RunningStack, settings: Settings, tmp_path: Path
) -> None:
    """What was not acknowledged is written again; repeats carry the same ids; nobody is called twice unflagged."""
    async with running_system(settings, tmp_path, concurrency=CONCURRENCY) as system:
        await asyncio.gather(system.start("intake"), system.start("lane", "simulated"))

        async def outage() -> None:
            await system.called(100)
            await asyncio.to_thread(own_stack.kafka.kill)
            await asyncio.to_thread(own_stack.kafka.start)

        outcome = await run_through(system, asyncio.create_task(outage()))
    assert outcome.assert_extra_calls_are_flagged() <= 2 * CONCURRENCY


async def test_sigterm_ends_a_worker_within_a_bound_while_kafka_is_away(
    own_stack: local_stack.RunningStack, settings: Settings, tmp_path: Path
) -> None:
    """It cannot commit or leave its group; a deploy must not hang on that. The next worker takes up what it held."""
    options = {"SLUICE_WORKER__DRAIN_SECONDS": "1"}
    async with running_system(settings, tmp_path, concurrency=CONCURRENCY, options=options) as system:
        _, lane = await asyncio.gather(system.start("intake"), system.start("lane", "simulated"))
        requests = [
            LLMRequest(
                request_id=f"r-{number}",
                messages=[Message(role=Role.USER, content="x")],
                metadata={"simulated.latency_ms": "1500"},
            )
            for number in range(CONCURRENCY)
        ]
        await system.send(requests)
        await system.called(CONCURRENCY)
        await asyncio.to_thread(own_stack.kafka.kill)
        await lane.stop(timeout_seconds=75)
        assert lane.process.returncode != -signal.SIGKILL
        await asyncio.to_thread(own_stack.kafka.start)
        await system.start("lane", "simulated")
        ids = [request.request_id for request in requests]
        outcome = await system.ended(ids, timeout_seconds=60)
    outcome.assert_each_ended_once(ids)
    outcome.assert_extra_calls_are_flagged()
