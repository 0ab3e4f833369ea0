"""A request that is sent again from the dead letters: another life under the same id, and no duplicate of the first."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from connectors.kafka.producer import Outgoing
from connectors.providers.base import Call
from policy.cancelling import concerns
from policy.summary import identity
from schemas import LLMRequest
from schemas.codec import SingleObjectCodec
from schemas.command import Command
from schemas.dead_letter_headers import read_dead_letter
from schemas.envelope import header
from schemas.vocabulary import AttemptOutcome, State
from tests.streams.flow import Flow, assert_sound
from tests.streams.samples import OVERLOADED, UNAUTHORISED, request
from tests.streams.world import ANSWER, START, World

SENT = request(metadata={"k": "v"})


async def failed_once(sent: LLMRequest = SENT) -> tuple[World, Flow, Outgoing]:
    """A request that failed, its dead letter, and a provider that would answer now."""
    world = World(outcome=ANSWER)
    world.script.in_turn = [UNAUTHORISED]
    flow = Flow(world)
    await flow.send(sent)
    await flow.run()
    (letter,) = world.written("llm.requests.dlt")
    world.pass_time(60)
    return world, flow, letter


def ids(world: World, topic: str) -> list[str | None]:
    return [header(record.headers, "ce_id") for record in world.written(topic)]


@pytest.mark.parametrize("is_confirmed", [True, False], ids=["confirmed", "not confirmed yet"])
async def test_a_redriven_request_goes_on_above_its_first_life(is_confirmed: bool) -> None:
    world, flow, letter = await failed_once()
    if is_confirmed:
        await world.confirm_all()
    await flow.redrive(letter)
    await flow.run()
    attempts = assert_sound(world, lives=2)
    assert world.calls["r-1"] == 2
    first, second = world.results().values()
    assert (first.status, second.status) == (State.FAILED, State.COMPLETED)
    assert second.state_version == first.state_version + 3
    assert [attempt.attempt for attempt in attempts] == [1, 2]
    assert [attempt.attempt for attempt in second.attempts] == [2]
    assert second.metadata == {"k": "v"}
    assert [event.state_version for event in world.events().values()] == [1, 2, 3, 4, 5, 6]


async def test_a_second_copy_with_the_same_count_is_a_duplicate() -> None:
    world, flow, letter = await failed_once()
    await flow.redrive(letter)
    await flow.redrive(letter)
    await flow.run()
    await flow.redrive(letter)
    await flow.run()
    assert_sound(world, lives=2)
    assert world.calls["r-1"] == 2


async def test_each_letter_counts_how_often_it_was_redriven() -> None:
    world = World(outcome=UNAUTHORISED)
    flow = Flow(world)
    await flow.send(SENT)
    await flow.run()
    for _ in range(3):
        await flow.redrive(world.written("llm.requests.dlt")[-1])
        await flow.run()
    letters = [read_dead_letter(letter.headers, size_bytes=0) for letter in world.written("llm.requests.dlt")]
    assert [letter.redrive_count for letter in letters] == [0, 1, 2, 3]
    assert [letter.attempt for letter in letters] == [1, 2, 3, 4]
    assert {letter.value for letter in world.written("llm.requests.dlt")} == {SingleObjectCodec().encode(SENT)}
    assert_sound(world, lives=4)


async def test_an_older_letter_does_not_begin_a_third_life() -> None:
    world = World(outcome=UNAUTHORISED)
    flow = Flow(world)
    await flow.send(SENT)
    await flow.run()
    (first,) = world.written("llm.requests.dlt")
    await flow.redrive(first)
    await flow.run()
    await flow.redrive(first)
    await flow.run()
    assert_sound(world, lives=2)


@pytest.mark.parametrize("is_restored", [True, False], ids=["results read back", "nothing known"])
async def test_a_state_that_was_emptied_does_not_mix_the_lives(is_restored: bool) -> None:
    """The record itself says where the life before ended."""
    world, flow, letter = await failed_once()
    world.forget()
    if is_restored:
        await world.confirm_all()
    world.pass_time(1)
    await flow.redrive(letter)
    await flow.run()
    assert_sound(world, lives=2)
    assert world.calls["r-1"] == 2
    assert [attempt.outcome for attempt in world.attempts().values()].count(AttemptOutcome.LOST) == 0


async def test_a_state_that_is_emptied_during_the_second_life_doubts_only_that_one() -> None:
    world, flow, letter = await failed_once()
    await flow.redrive(letter)
    world.forget()
    await flow.run()
    attempts = assert_sound(world, lives=2)
    assert world.calls["r-1"] == 2
    assert [attempt.attempt for attempt in attempts] == [1, 2, 3]
    assert [attempt.outcome for attempt in attempts].count(AttemptOutcome.LOST) == 1


async def test_a_second_life_has_its_own_retries() -> None:
    world = World(outcome=ANSWER)
    world.script.in_turn = [OVERLOADED] * 7
    flow = Flow(world)
    await flow.send(SENT)
    await flow.run()
    await flow.redrive(world.written("llm.requests.dlt")[0])
    await flow.run()
    attempts = assert_sound(world, lives=2)
    assert [attempt.attempt for attempt in attempts] == list(range(1, 9))
    assert [len(result.attempts) for result in world.results().values()] == [4, 4]
    assert [result.status for result in world.results().values()] == [State.FAILED, State.COMPLETED]


async def test_a_completed_request_has_no_second_life() -> None:
    world = World(outcome=ANSWER)
    flow = Flow(world)
    await flow.send(SENT)
    await flow.run()
    made_up = [("sluice_redrive-count", b"1"), ("sluice_redrive-state-version", b"3"), ("sluice_redrive-attempt", b"1")]
    delivery = world.request_delivery(SENT, offset=1, headers=made_up)
    await world.intake(delivery)
    await flow.run()
    assert_sound(world)
    assert world.calls["r-1"] == 1


async def test_a_redriven_record_that_is_refused_ends_above_its_first_life() -> None:
    """Its provider has been taken out of the catalogue, say."""
    world, flow, letter = await failed_once()
    refused = replace(letter, value=SingleObjectCodec().encode(SENT.model_copy(update={"model": "gone"})))
    await flow.redrive(refused)
    first, second = world.results().values()
    assert (second.status, second.state_version) == (State.REJECTED, first.state_version + 1)
    described = read_dead_letter(world.written("llm.requests.dlt")[-1].headers, size_bytes=0)
    assert (described.redrive_count, described.state_version) == (1, second.state_version)
    assert_sound(world, lives=2)


async def test_a_cancellation_of_the_first_life_does_not_stop_the_second() -> None:
    world, flow, letter = await failed_once()
    await world.cancel(Command(command_id="c", issued_at=START + timedelta(seconds=30), tenant_id="default"))
    await flow.redrive(letter)
    await flow.run()
    assert_sound(world, lives=2)
    assert [result.status for result in world.results().values()] == [State.FAILED, State.COMPLETED]


async def test_a_cancellation_that_comes_late_does_not_stop_the_life_that_was_asked_for_after_it() -> None:
    """Neither where it waits, nor where its worker has heard of it, nor in its call."""
    world, flow, letter = await failed_once(SENT.model_copy(update={"submitted_at": START}))
    from_before = Command(command_id="c", issued_at=START + timedelta(seconds=30), tenant_id="default")
    world.is_called_off = lambda sent: concerns(from_before, identity(sent), submitted_at=sent.submitted_at)

    async def hear(_call: Call) -> None:
        assert world.leases is not None
        assert world.leases.cancel(world.is_called_off) == 0

    world.script.during = hear
    await flow.redrive(letter)
    assert await world.cancel(from_before) == 0
    await flow.run()
    assert_sound(world, lives=2)
    assert [result.status for result in world.results().values()] == [State.FAILED, State.COMPLETED]


@pytest.mark.parametrize("is_heard", [False, True], ids=["where it waits", "at its call"])
async def test_a_redriven_request_can_be_called_off(*, is_heard: bool) -> None:
    world, flow, letter = await failed_once(SENT.model_copy(update={"submitted_at": START}))
    await flow.redrive(letter)
    command = Command(command_id="c", issued_at=world.clock, tenant_id="default")
    if is_heard:
        world.is_called_off = lambda sent: concerns(command, identity(sent), submitted_at=sent.submitted_at)
    else:
        assert await world.cancel(command) == 1
    await flow.run()
    assert_sound(world, lives=2)
    assert [result.status for result in world.results().values()] == [State.FAILED, State.CANCELLED]
    assert world.calls["r-1"] == 1


async def test_the_ids_of_two_lives_never_meet() -> None:
    world, flow, letter = await failed_once()
    before = {topic: set(ids(world, topic)) for topic in ("llm.status", "llm.results", "llm.attempts")}
    written = len(world.log)
    await flow.redrive(letter)
    await flow.run()
    for record in world.log[written:]:
        if record.topic in before:
            assert header(record.headers, "ce_id") not in before[record.topic]


@pytest.mark.parametrize(
    "fields",
    [{"model": "nobody-serves-this"}, {"response_format": {"json_schema": '{"type": "nonsense"}'}}],
    ids=["no route", "a schema that cannot be used"],
)
async def test_one_refused_at_the_door_gets_the_copy_that_its_sender_wants(fields: dict[str, Any]) -> None:
    settings = World().settings
    allowing = settings.worker.model_copy(update={"result_topics": ["mine"]})
    world = World(settings=settings.model_copy(update={"worker": allowing}))
    delivery = world.request_delivery(request(result_topic="mine", **fields))
    await world.intake(delivery)
    (copy,) = world.written("mine")
    (result,) = world.written("llm.results")
    assert (copy.value, header(copy.headers, "ce_id")) == (result.value, header(result.headers, "ce_id"))


async def test_one_that_asks_for_a_topic_that_is_not_allowed_gets_no_copy() -> None:
    world = World()
    await world.intake(world.request_delivery(request(result_topic="theirs")))
    assert world.written("theirs") == []
    assert [result.status for result in world.results().values()] == [State.REJECTED]
