"""Processes die in mid-run, and 2,000 requests do not notice: none lost, none ended twice, extra calls recorded."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from connectors.settings import Settings
from schemas import LLMRequest
from schemas.request import Message
from schemas.vocabulary import Role, State
from sluice.role_process import RoleProcess
from tests.integration.system import Outcome, System, running_system

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(180)]

REQUESTS = 2000
CONCURRENCY = 32
KILLS_AT = (300, 900, 1500)
"""Numbers of provider calls after which a worker is killed: early, in the middle, late."""


def requests(count: int = REQUESTS) -> list[LLMRequest]:
    """One in twenty takes half a second, so that records finish out of order."""
    dice = random.Random(7)
    return [
        LLMRequest(
            request_id=f"r-{number}",
            messages=[Message(role=Role.USER, content=f"question {number}")],
            metadata={"simulated.latency_ms": "500"} if dice.random() < 0.05 else {},
        )
        for number in range(count)
    ]


async def through(system: System, disturb: Callable[[], Awaitable[None]]) -> Outcome:
    sent = requests()
    sending = asyncio.create_task(system.send(sent))
    await disturb()
    await sending
    ids = [request.request_id for request in sent]
    outcome = await system.ended(ids, timeout_seconds=120)
    outcome.assert_each_ended_once(ids)
    assert all(outcome.result(name).status is State.COMPLETED for name in ids)
    return outcome


async def test_kill_9_of_a_lane_worker_at_several_points(stack_settings: Settings, tmp_path: Path) -> None:
    """Calls beyond one per request are at most those in flight at the kills, and each is flagged."""
    async with running_system(stack_settings, tmp_path, concurrency=CONCURRENCY) as system:
        _, *workers = await asyncio.gather(
            system.start("intake"), system.start("lane", "simulated"), system.start("lane", "simulated")
        )

        async def kill_and_replace() -> None:
            for calls in KILLS_AT:
                await system.called(calls)
                workers.pop(0).kill()
                workers.append(system.spawn("lane", "simulated"))

        outcome = await through(system, kill_and_replace)
    assert outcome.assert_extra_calls_are_flagged() <= len(KILLS_AT) * CONCURRENCY


async def test_kill_9_of_intake_at_several_points(stack_settings: Settings, tmp_path: Path) -> None:
    """No request is called twice: a crash at the door costs no provider call."""
    async with running_system(stack_settings, tmp_path, concurrency=CONCURRENCY) as system:
        intake, _ = await asyncio.gather(system.start("intake"), system.start("lane", "simulated"))

        async def kill_and_replace() -> None:
            victim: RoleProcess = intake
            for calls in KILLS_AT:
                await system.called(calls)
                victim.kill()
                victim = system.spawn("intake")

        outcome = await through(system, kill_and_replace)
    assert outcome.assert_extra_calls_are_flagged() == 0


async def test_sigterm_during_calls_and_workers_that_join_and_leave(stack_settings: Settings, tmp_path: Path) -> None:
    """A deploy of every worker in turn: calls in flight end, nothing is called twice."""
    async with running_system(stack_settings, tmp_path, concurrency=CONCURRENCY) as system:
        first, intake = await asyncio.gather(system.start("lane", "simulated"), system.start("intake"))

        async def deploy() -> None:
            await system.called(300)
            second = await system.start("lane", "simulated")
            await system.called(700)
            assert await first.stop() == 0
            await system.called(1000)
            replacement = await system.start("intake")
            assert await intake.stop() == 0
            await system.called(1400)
            third = await system.start("lane", "simulated")
            assert await second.stop() == 0
            assert replacement.process.poll() is None
            assert third.process.poll() is None

        outcome = await through(system, deploy)
    assert outcome.assert_extra_calls_are_flagged() == 0


async def test_sigterm_leaves_calls_that_outlast_the_drain_to_the_next_worker(
    stack_settings: Settings, tmp_path: Path
) -> None:
    """They are ended, given back and called again by another worker at once, and flagged as possibly billed."""
    options = {"SLUICE_WORKER__DRAIN_SECONDS": "0.5", "SLUICE_WORKER__LEASE_SECONDS": "60"}
    async with running_system(stack_settings, tmp_path, options=options) as system:
        worker, _ = await asyncio.gather(system.start("lane", "simulated"), system.start("intake"))
        slow = [
            LLMRequest(
                request_id=f"slow-{number}",
                messages=[Message(role=Role.USER, content="x")],
                metadata={"simulated.hang": "true", "simulated.fail_attempts": "1"},
            )
            for number in range(5)
        ]
        await system.send(slow)
        await system.called(5)
        assert await worker.stop() == 0
        await system.start("lane", "simulated")
        ids = [request.request_id for request in slow]
        outcome = await system.ended(ids, timeout_seconds=30)
    outcome.assert_each_ended_once(ids)
    assert all(outcome.result(name).status is State.COMPLETED for name in ids)
    assert outcome.assert_extra_calls_are_flagged() == 5
