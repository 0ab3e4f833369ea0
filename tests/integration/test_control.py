"""Retries, deadlines, cancellations and breakers of a whole system, with real processes, Kafka and Redis."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from connectors.kafka.client import client_options
from connectors.kafka.reader import TopicReader
from connectors.settings import Settings
from schemas import Command, LaneReport, LLMRequest
from schemas.codec import decode_single_object
from schemas.request import Message
from schemas.vocabulary import BreakerState, FailureCategory, Role, State
from tests.integration.system import Outcome, System, running_system

QUICK_RETRIES = {"SLUICE_RETRY__BASE_SECONDS": "0.01", "SLUICE_RETRY__FACTOR": "1"}


def chat(request_id: str, **fields: object) -> LLMRequest:
    return LLMRequest.model_validate(
        {"request_id": request_id, "messages": [Message(role=Role.USER, content="x")], **fields}
    )


async def start(system: System, *more: tuple[str, ...]) -> None:
    roles = (("intake",), ("lane", "simulated"), ("control",), *more)
    await asyncio.gather(*(system.start(*role) for role in roles))


async def test_failures_that_may_pass_are_tried_again(stack_settings: Settings, tmp_path: Path) -> None:
    """After two failures the third call answers; an event says when each follows, and a Retry-After is kept to."""
    async with running_system(stack_settings, tmp_path, options=QUICK_RETRIES) as system:
        await start(system)
        fails = {"simulated.fail": "overloaded", "simulated.fail_attempts": "2"}
        asked = {"simulated.fail": "rate_limited", "simulated.retry_after_seconds": "2.5"}
        requests = [
            chat("twice-failing", metadata=fails),
            chat("asked-to-wait", metadata={**asked, "simulated.fail_attempts": "1"}),
        ]
        await system.send(requests)
        outcome = await system.ended(["twice-failing", "asked-to-wait"])

    again = ["processing", "retry_scheduled", "queued"]
    assert outcome.states("twice-failing") == ["queued", *again, *again, "processing", "completed"]
    assert [attempt.attempt for attempt in outcome.result("twice-failing").attempts] == [1, 2, 3]
    scheduled = [
        event
        for _, event in outcome.events
        if event.state is State.RETRY_SCHEDULED and event.request_id == "asked-to-wait"
    ]
    assert {event.reason for event in scheduled} == {FailureCategory.RATE_LIMITED}
    first, second = outcome.result("asked-to-wait").attempts
    assert scheduled[0].retry_at is not None
    assert second.started_at >= scheduled[0].retry_at >= first.ended_at + timedelta(seconds=2.5)


async def test_a_wait_survives_the_control_role(stack_settings: Settings, tmp_path: Path) -> None:
    """The delayed task is in Kafka: killed while it waits, the control role is replaced, and the task comes back."""
    async with running_system(stack_settings, tmp_path, options=QUICK_RETRIES) as system:
        _, _, control = await asyncio.gather(
            system.start("intake"), system.start("lane", "simulated"), system.start("control")
        )
        fails = {"simulated.fail": "rate_limited", "simulated.fail_attempts": "1", "simulated.retry_after_seconds": "4"}
        names = [f"r-{number}" for number in range(20)]
        await system.send([chat(name, metadata=fails) for name in names])
        await system.called(len(names))
        control.kill()
        await system.start("control")
        outcome = await system.ended(names)
    outcome.assert_each_ended_once(names)
    assert set(outcome.starts().values()) == {2}


async def test_a_request_moves_to_another_provider_if_it_may(stack_settings: Settings, tmp_path: Path) -> None:
    """A failure goes at once to the next provider; a pinned request stays, and waits."""
    async with running_system(stack_settings, tmp_path, options=QUICK_RETRIES, second_provider=True) as system:
        await start(system, ("lane", "spare"))
        fails = {"simulated.fail": "server_error", "simulated.fail_attempts": "1"}
        requests = [
            chat("free", metadata=fails, allow_failover=True, stream=True),
            chat("pinned", metadata=fails, allow_failover=True, provider="simulated"),
        ]
        await system.send(requests)
        outcome = await system.ended(["free", "pinned"])
    assert [attempt.provider for attempt in outcome.result("free").attempts] == ["simulated", "spare"]
    assert outcome.states("free") == ["queued", "processing", "queued", "processing", "completed"]
    assert [attempt.provider for attempt in outcome.result("pinned").attempts] == ["simulated", "simulated"]


async def test_a_cancellation_ends_requests_wherever_they_are(stack_settings: Settings, tmp_path: Path) -> None:
    """In a call: the connection to the provider is closed at once. Queued behind it, delayed, or not yet come."""
    options = {"SLUICE_RETRY__BASE_SECONDS": "100000", "SLUICE_RETRY__MAX_SECONDS": "10000"}
    async with running_system(stack_settings, tmp_path, concurrency=1, options=options) as system:
        await start(system)
        delayed = {"simulated.fail": "server_error"}
        await system.send([chat("delayed", metadata=delayed, tenant_id="team")])
        await system.called(1)
        hangs = {"simulated.hang": "true"}
        await system.send([chat("called", metadata=hangs, tenant_id="team")])
        await system.called(2)
        await system.send([chat("queued", tenant_id="team"), chat("other", tenant_id="other")])
        now = datetime.now(UTC)
        await system.command(Command(command_id="c-1", tenant_id="team", issued_at=now, issued_by="tester"))
        await system.command(Command(command_id="c-2", request_id="to-come", issued_at=now))
        names = ["delayed", "called", "queued"]
        ended = await system.ended([*names, "other"])
        await system.send([chat("to-come", submitted_at=now)])
        outcome = await system.ended(["to-come"])
    outcome.assert_each_ended_once([*names, "to-come", "other"])
    assert {outcome.result(name).status for name in [*names, "to-come"]} == {State.CANCELLED}
    assert outcome.result("other").status is State.COMPLETED
    assert outcome.starts() == {"delayed": 1, "called": 1, "other": 1}
    assert ended.result("called").possibly_billed_calls == 1
    assert [call["event"] for call in ended.calls if call["request_id"] == "called"] == ["start", "cancelled"]


async def test_an_open_breaker_saves_calls_and_deadlines_go_on(stack_settings: Settings, tmp_path: Path) -> None:
    """After five failures in a row no call is made; requests expire on time all the same; then a probe closes it."""
    rules = "[providers.simulated.breaker]\nfailures = 5\nopen_seconds = 4\nsuccesses = 1\n"
    options = {**QUICK_RETRIES, "SLUICE_RETRY__MAX_RETRIES": "0"}
    async with running_system(stack_settings, tmp_path, concurrency=1, options=options, provider_rules=rules) as system:
        await start(system)
        broken = {"simulated.fail": "server_error"}
        failing = [f"failing-{number}" for number in range(5)]
        await system.send([chat(name, metadata=broken) for name in failing])
        await system.ended(failing)
        await breaker_is(system, BreakerState.OPEN)
        deadline = datetime.now(UTC) + timedelta(seconds=1.5)
        await system.send([chat("expiring", deadline_at=deadline), chat("waiting")])
        expired = await system.ended(["expiring"])
        calls_while_open = sum(expired.starts().values())
        outcome = await system.ended(["waiting"])
        await breaker_is(system, BreakerState.CLOSED)
    assert calls_while_open == len(failing)
    assert expired.result("expiring").status is State.EXPIRED
    assert expired.result("expiring").attempts == []
    assert expired.result("expiring").finished_at < deadline + timedelta(seconds=2.5)
    assert outcome.result("waiting").status is State.COMPLETED


async def breaker_is(system: System, state: BreakerState) -> None:
    """Waits until a worker reports that its lane's breaker is in this state, as its latest news."""
    settings = system.settings
    async with (
        asyncio.timeout(30),
        TopicReader(client_options(settings), [settings.topics.lane_reports], start="beginning") as reader,
    ):
        async for record in reader:
            if decode_single_object(LaneReport, record.value).breaker is state:
                return


@pytest.mark.parametrize("victim", ["intake", "control"])
async def test_a_role_is_killed_under_load(stack_settings: Settings, tmp_path: Path, victim: str) -> None:
    """Requests that fail once, with the role killed in between: each ends once, each extra call is flagged."""
    async with running_system(stack_settings, tmp_path, options=QUICK_RETRIES) as system:
        roles = dict(
            zip(
                ("intake", "lane", "control"),
                await asyncio.gather(
                    system.start("intake"), system.start("lane", "simulated"), system.start("control")
                ),
                strict=True,
            )
        )
        fails = {"simulated.fail": "truncated", "simulated.fail_attempts": "1"}
        names = [f"r-{number}" for number in range(120)]
        await system.send([chat(name, metadata=fails if number % 2 else {}) for number, name in enumerate(names)])
        await system.called(40)
        roles[victim].kill()
        await system.start(victim)
        outcome: Outcome = await system.ended(names)
    outcome.assert_each_ended_once(names)
    assert {outcome.result(name).status for name in names} == {State.COMPLETED}
