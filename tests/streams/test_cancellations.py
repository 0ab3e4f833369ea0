"""A cancellation is honoured wherever the request is, and concerns nothing that was sent later."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from policy.cancelling import CLOCKS_DIFFER
from schemas.codec import SingleObjectCodec
from schemas.command import Command
from schemas.vocabulary import State
from streams.commands import CancelListener, CommandStage, read_command
from streams.leases import LeaseKeeper
from tests.streams.cancel_support import BY_ID, LATER, SENT, THAT_DO_NOT, THAT_FIT, cancelled, command, record_of
from tests.streams.flow import Flow, assert_sound
from tests.streams.kept_log import KeptLogConsumer
from tests.streams.samples import OVERLOADED, request
from tests.streams.world import LEASE_SECONDS, START, Crasher, World


@pytest.mark.parametrize("names", THAT_FIT, ids=str)
async def test_a_request_that_waits_in_its_lane_is_called_off(names: dict[str, str]) -> None:
    """Behind an open gate as well: there the lane has not taken it up."""
    world = World()
    flow = Flow(world)
    await flow.send(SENT)
    assert await world.cancel(command(**names)) == 1
    await flow.run()
    await cancelled(world)
    assert world.calls["r-1"] == 0


@pytest.mark.parametrize("names", THAT_DO_NOT, ids=str)
async def test_another_request_is_left_alone(names: dict[str, str]) -> None:
    world = World()
    flow = Flow(world)
    await flow.send(SENT)
    assert await world.cancel(command(**names)) == 0
    await flow.run()
    assert [result.status for result in world.results().values()] == [State.COMPLETED]


@pytest.mark.parametrize("names", THAT_FIT, ids=str)
async def test_a_request_that_waits_for_a_retry_is_called_off(names: dict[str, str]) -> None:
    world = World(outcome=OVERLOADED)
    flow = Flow(world)
    await flow.send(SENT)
    await flow.take_one()
    assert await world.cancel(command(**names)) == 1
    await flow.run()
    await cancelled(world, attempts=1)
    assert world.calls["r-1"] == 1


@pytest.mark.parametrize("names", THAT_FIT, ids=str)
async def test_a_request_that_was_called_off_before_it_came_is_not_called(names: dict[str, str]) -> None:
    world = World()
    assert await world.cancel(command(**names)) == 0
    delivery = world.request_delivery(SENT)
    await world.intake(delivery)
    await world.lane_all()
    assert world.tasks() == []
    await cancelled(world)


@pytest.mark.parametrize("names", THAT_FIT[:3], ids=str)
async def test_what_is_submitted_later_is_not_concerned(names: dict[str, str]) -> None:
    world = World()
    await world.cancel(command(**names))
    flow = Flow(world)
    await flow.send(SENT.model_copy(update={"submitted_at": LATER + timedelta(milliseconds=1)}))
    assert await world.cancel(command(**names)) == 0
    await flow.run()
    assert [result.status for result in world.results().values()] == [State.COMPLETED]


FROM_THE_FUTURE = command(tenant_id="t", issued_at=LATER + timedelta(days=365))
"""Its record was written at LATER."""


async def _carried_out(world: World, sent: Command) -> None:
    consumer: Any = KeptLogConsumer("llm.commands")
    consumer.add(value=SingleObjectCodec().encode(sent))
    stop = asyncio.Event()
    consumer.on_commit = stop.set
    context, ends = world.control()
    await CommandStage(context, ends, consumer, all_confirmed=world.confirm_all, steady_since=world.steady_since).run(
        stop
    )


async def test_a_command_that_claims_to_be_from_the_future_concerns_nothing_that_is_sent_after_its_record() -> None:
    """But for what the clocks of two hosts may differ by."""
    world = World()
    flow = Flow(world)
    await flow.send(SENT)
    await _carried_out(world, FROM_THE_FUTURE)
    latest = START + CLOCKS_DIFFER
    for name, submitted_at in (("too", latest), ("later", latest + timedelta(milliseconds=1))):
        await flow.send(SENT.model_copy(update={"request_id": name, "submitted_at": submitted_at}))
    await flow.run()
    ends = {result.request_id: result.status for result in world.results().values()}
    assert ends == {"r-1": State.CANCELLED, "too": State.CANCELLED, "later": State.COMPLETED}


async def test_a_worker_believes_a_command_from_the_future_no_more_than_the_control_role_does() -> None:
    context, _ = World()._process(Crasher(), "/lane")
    listener = CancelListener(context, LeaseKeeper(context.claims, lease_seconds=LEASE_SECONDS))
    await listener._hear(record_of(SingleObjectCodec().encode(FROM_THE_FUTURE)))
    latest = LATER + CLOCKS_DIFFER
    assert listener.has_called_off(SENT.model_copy(update={"submitted_at": latest}))
    assert not listener.has_called_off(SENT.model_copy(update={"submitted_at": latest + timedelta(milliseconds=1)}))


async def test_what_has_ended_stays_as_it_ended() -> None:
    world = World()
    flow = Flow(world)
    await flow.send(SENT)
    await flow.run()
    assert await world.cancel(BY_ID) == 0
    await flow.run()
    assert_sound(world)
    assert [result.status for result in world.results().values()] == [State.COMPLETED]


async def test_a_command_carried_out_twice_ends_once() -> None:
    world = World()
    await Flow(world).send(SENT)
    assert await world.cancel(BY_ID) == 1
    assert await world.cancel(BY_ID) == 0
    await cancelled(world)


async def test_the_end_says_who_called_it_off_and_why() -> None:
    world = World()
    await Flow(world).send(SENT)
    await world.cancel(BY_ID)
    (result,) = world.results().values()
    assert result.problem is not None
    assert result.problem.message == "cancelled by mw: not needed"


async def test_a_tenants_requests_are_all_called_off_and_no_others() -> None:
    world = World()
    flow = Flow(world)
    for number in range(20):
        await flow.send(request(f"r-{number}", tenant_id="t" if number % 2 else "u"))
    assert await world.cancel(command(tenant_id="t")) == 10
    await flow.run()
    ends = {result.request_id: result.status for result in world.results().values()}
    assert {ends[f"r-{number}"] for number in range(0, 20, 2)} == {State.COMPLETED}
    assert {ends[f"r-{number}"] for number in range(1, 20, 2)} == {State.CANCELLED}


async def test_a_command_is_read_as_json_or_avro() -> None:
    codec = SingleObjectCodec()
    written = b'{"command_id": "c-1", "request_id": "r-1", "issued_at": "2026-11-21T12:00:01Z"}'
    assert await read_command(codec, record_of(written)) == command(request_id="r-1")
    assert await read_command(codec, record_of(codec.encode(BY_ID))) == BY_ID


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xc3\x01garbage-and-more",
        b"{broken",
        b'{"command_id": "c-1", "issued_at": "2026-11-21T12:00:01Z"}',
        b'{"command_id": "c-1", "request_id": "r-1", "issued_at": "yesterday"}',
        b'{"command_id": "c-1", "request_id": "r-1", "issued_at": "2026-11-21T12:00:01Z", "action": "unknown"}',
    ],
)
async def test_a_command_that_cannot_be_read_is_passed_over(value: bytes | None) -> None:
    """One that names nothing among them: it would concern everything."""
    assert await read_command(SingleObjectCodec(), record_of(value)) is None
