"""A cancellation is honoured wherever the request is, and concerns nothing that was sent later."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from connectors.providers.base import Call
from connectors.state.base import Claimed
from policy.cancelling import CLOCKS_DIFFER
from schemas.codec import SingleObjectCodec
from schemas.command import Command
from schemas.vocabulary import AttemptOutcome, FailureCategory, State
from streams.commands import CancelListener, CommandStage, read_command
from streams.leases import LeaseKeeper
from tests.streams.flow import Flow, assert_sound
from tests.streams.kept_log import KeptLogConsumer
from tests.streams.samples import OVERLOADED, TWO_PROVIDERS, request
from tests.streams.world import LEASE_SECONDS, START, Crasher, World

SENT = request(tenant_id="t", correlation_id="c")
LATER = START + timedelta(seconds=1)


def command(**names: Any) -> Command:
    return Command.model_validate({"command_id": "c-1", "issued_at": LATER, **names})


BY_ID = command(request_id="r-1", reason="not needed", issued_by="mw")
THAT_FIT = [
    {"request_id": "r-1"},
    {"tenant_id": "t"},
    {"correlation_id": "c"},
    {"request_id": "r-1", "tenant_id": "t"},
    {"tenant_id": "t", "correlation_id": "c"},
    {"request_id": "r-1", "tenant_id": "t", "correlation_id": "c"},
]
THAT_DO_NOT = [
    {"request_id": "r-2"},
    {"tenant_id": "u"},
    {"correlation_id": "d"},
    {"request_id": "r-1", "tenant_id": "u"},
    {"tenant_id": "t", "correlation_id": "d"},
    {"request_id": "r-1", "tenant_id": "t", "correlation_id": "d"},
]


async def cancelled(world: World, *, attempts: int = 0) -> None:
    """What every cancellation leaves behind."""
    (result,) = world.results().values()
    assert (result.status, len(result.attempts)) == (State.CANCELLED, attempts)
    assert result.problem is not None
    assert result.problem.category is FailureCategory.CANCELLED
    event = list(world.events().values())[-1]
    assert (event.type, event.reason) == ("QUEUE_REQUEST_CANCELLED", FailureCategory.CANCELLED)
    assert_sound(world)
    await world.confirm_all()
    assert await world.state.outstanding() == (0, 0)
    assert world.written("llm.requests.dlt") == []


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
    context, ending = world._process(Crasher(), "/control")
    await CommandStage(context, ending, consumer, all_confirmed=world.confirm_all, steady_since=world.steady_since).run(
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
    await listener._hear(_record(SingleObjectCodec().encode(FROM_THE_FUTURE)))
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


@pytest.mark.parametrize("names", THAT_FIT, ids=str)
async def test_a_running_call_is_closed_at_once_and_recorded(names: dict[str, str]) -> None:
    """Its worker hears the command by itself, and the provider's connection is closed."""
    world = World()

    async def hear(_call: Call) -> None:
        await _hear(world, command(**names))
        await asyncio.Event().wait()

    world.script.during = hear
    flow = Flow(world)
    await flow.send(SENT)
    async with asyncio.timeout(10):
        await flow.run()
    assert world.script.closed == 1
    (attempt,) = world.attempts().values()
    assert (attempt.outcome, attempt.possibly_billed) == (AttemptOutcome.FAILED, True)
    assert attempt.problem is not None
    assert attempt.problem.category is FailureCategory.CANCELLED
    await cancelled(world, attempts=1)
    (result,) = world.results().values()
    assert result.possibly_billed_calls == 1


async def test_a_running_call_of_another_request_goes_on() -> None:
    world = World()

    async def hear(_call: Call) -> None:
        await _hear(world, command(request_id="r-2"))
        await asyncio.sleep(0)

    world.script.during = hear
    flow = Flow(world)
    await flow.send(SENT)
    await flow.run()
    assert [result.status for result in world.results().values()] == [State.COMPLETED]


async def test_a_running_call_of_a_request_that_was_submitted_later_goes_on() -> None:
    """Also where the request itself does not say when that was, and its record does."""
    world = World()
    world.pass_time(5)

    async def hear(_call: Call) -> None:
        await _hear(world, command(tenant_id="t"))
        await asyncio.sleep(0)

    world.script.during = hear
    flow = Flow(world)
    await flow.send(SENT)
    await flow.run()
    assert [result.status for result in world.results().values()] == [State.COMPLETED]


async def test_one_that_is_called_off_while_it_is_claimed_is_not_called() -> None:
    """The worker hears of it before it knows that the lease is its own."""
    world = World()
    flow = Flow(world)
    await flow.send(SENT)
    claim = world.state.claim
    heard = []
    world.is_called_off = lambda _: bool(heard)

    async def claim_and_hear(request_id: str, **arguments: Any) -> object:
        taken = await claim(request_id, **arguments)
        heard.append(BY_ID)
        return taken

    world.state.claim = claim_and_hear  # type: ignore[assignment,method-assign]
    await flow.run()
    assert world.calls["r-1"] == 0
    await cancelled(world)


class HearsAtTheLast:
    """A permit that is looked at just before the call: then the command comes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.left: list[object] = []

    @property
    def refusal(self) -> None:
        assert self._world.leases is not None
        self._world.leases.cancel(lambda _: True)

    def leave(self, outcome: object) -> None:
        self.left.append(outcome)


async def test_one_that_is_called_off_just_before_its_call_counts_no_call() -> None:
    """No call went out: nothing is flagged, and no attempt is on record."""
    world = World()
    permit = world.permit = HearsAtTheLast(world)  # type: ignore[assignment]
    flow = Flow(world)
    await flow.send(SENT)
    await flow.run()
    assert world.calls["r-1"] == 0
    await cancelled(world)
    (result,) = world.results().values()
    assert result.possibly_billed_calls == 0
    assert permit.left == [None]


async def test_the_control_role_leaves_a_call_to_its_worker_and_tells_it() -> None:
    """Should the worker not hear the command, its lease says so; should it die, the next claim does."""
    world = World()
    flow = Flow(world)
    await flow.send(SENT)
    claim = await world.state.claim("r-1", owner="other", lease_ms=int(LEASE_SECONDS * 1000))
    assert isinstance(claim, Claimed)
    assert await world.cancel(BY_ID) == 0
    assert world.results() == {}
    renewal = await world.state.renew([claim.lease], lease_ms=int(LEASE_SECONDS * 1000))
    assert renewal.cancelled == (claim.lease,)
    world.pass_time(LEASE_SECONDS + 1)
    await flow.run()
    assert world.calls["r-1"] == 0
    await cancelled(world, attempts=1)
    (attempt,) = world.attempts().values()
    assert (attempt.outcome, attempt.possibly_billed) == (AttemptOutcome.LOST, True)


async def test_a_request_whose_worker_died_is_called_off_with_its_lost_call() -> None:
    world = World()
    await Flow(world).send(SENT)
    await world.state.claim("r-1", owner="dead", lease_ms=int(LEASE_SECONDS * 1000))
    world.pass_time(LEASE_SECONDS + 1)
    assert await world.cancel(BY_ID) == 1
    await cancelled(world, attempts=1)


async def test_what_was_called_off_in_its_call_does_not_wait_for_its_next_worker() -> None:
    """Its worker heard of it and died, and no other has room, say: a sweep ends it as soon as nobody holds it."""
    world = World()
    await Flow(world).send(SENT)
    await world.state.claim("r-1", owner="dead", lease_ms=int(LEASE_SECONDS * 1000))
    assert await world.cancel(BY_ID) == 0
    assert await world.sweep() == 0
    world.pass_time(LEASE_SECONDS + 1)
    assert await world.sweep() == 1
    await cancelled(world, attempts=1)
    (attempt,) = world.attempts().values()
    assert (attempt.outcome, attempt.possibly_billed) == (AttemptOutcome.LOST, True)


async def test_an_answer_that_came_before_the_command_is_kept() -> None:
    """It is paid for: the call had ended when the worker heard of it."""
    world = World()
    flow = Flow(world)
    await flow.send(SENT)

    async def mark(_call: Call) -> None:
        await world.state.cancel(["r-1"])

    world.script.during = mark
    await flow.run()
    assert [result.status for result in world.results().values()] == [State.COMPLETED]


@pytest.mark.parametrize("may_move", [False, True], ids=["retry", "failover"])
async def test_a_call_that_fails_just_as_its_cancellation_lands_ends_at_once(*, may_move: bool) -> None:
    """Its worker has not heard of it: the shared state says that there is to be no other try."""
    world = World(outcome=OVERLOADED, catalogue=TWO_PROVIDERS)

    async def mark(_call: Call) -> None:
        assert await world.cancel(BY_ID) == 0

    world.script.during = mark
    flow = Flow(world)
    await flow.send(SENT.model_copy(update={"allow_failover": may_move}))
    await flow.run()
    assert world.clock == START
    assert world.calls["r-1"] == 1
    await cancelled(world, attempts=1)
    assert len(world.written("llm.attempts")) == 1


async def test_a_call_that_fails_while_its_cancellation_is_carried_out_ends_at_once() -> None:
    """It was seen in its call, and waits for another one before it is marked as cancelled."""
    world = World(outcome=OVERLOADED)
    flow = Flow(world)
    await flow.send(SENT)
    marking = world.state.cancel

    is_called, goes_on = asyncio.Event(), asyncio.Event()

    async def fail_and_mark(request_ids: Sequence[str]) -> None:
        goes_on.set()
        await call
        await marking(request_ids)

    async def wait(_call: Call) -> None:
        is_called.set()
        await goes_on.wait()

    world.state.cancel = fail_and_mark  # type: ignore[method-assign]
    world.script.during = wait
    call = asyncio.create_task(flow.take_one())
    await is_called.wait()
    assert await world.cancel(BY_ID) == 1
    await flow.run()
    await cancelled(world, attempts=1)


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
    assert await read_command(codec, _record(written)) == command(request_id="r-1")
    assert await read_command(codec, _record(codec.encode(BY_ID))) == BY_ID


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
    assert await read_command(SingleObjectCodec(), _record(value)) is None


async def _hear(world: World, heard: Command) -> None:
    assert world.leases is not None
    context, _ = world._process(Crasher(), "/lane")
    await CancelListener(context, world.leases)._hear(_record(SingleObjectCodec().encode(heard)))


def _record(value: bytes | None) -> Any:
    return SimpleNamespace(value=value, partition=0, offset=0, timestamp=LATER.timestamp() * 1000)
