"""The loops of the control role: what failed half-way is begun again, and reading keeps up with writing."""

import asyncio
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer

from schemas.codec import SingleObjectCodec
from schemas.command import Command
from schemas.vocabulary import State
from streams import confirming, control
from streams.commands import CommandStage
from streams.confirming import ResultConfirmer
from streams.control import _forever
from streams.deadlines import DeadlineSweeper
from tests.streams.flow import Flow
from tests.streams.kept_log import KeptLogConsumer
from tests.streams.samples import request
from tests.streams.world import START, Crasher, World


def cancelling(request_id: str) -> bytes:
    return SingleObjectCodec().encode(Command(command_id=f"c-{request_id}", issued_at=START, request_id=request_id))


def confirmer_of(world: World, consumer: KeptLogConsumer) -> ResultConfirmer:
    context, _ = world._process(Crasher(), "/control")
    return ResultConfirmer(context, cast("AIOKafkaConsumer", consumer))


def add_result(consumer: KeptLogConsumer, request_id: str, *, version: bytes = b"3") -> None:
    consumer.add(key=request_id.encode(), headers=[("ce_state", b"completed"), ("ce_sequence", version)])


async def test_what_was_read_before_an_error_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The consumer is behind both commands when the first one fails; neither may be lost."""
    monkeypatch.setattr(control, "AFTER_ERROR_SECONDS", 0.0)
    world = World()
    flow = Flow(world)
    for name in ("r-1", "r-2"):
        await flow.send(request(name))
    consumer = KeptLogConsumer("llm.commands")
    for name in ("r-1", "r-2"):
        consumer.add(value=cancelling(name))
    stop, failures = asyncio.Event(), [RuntimeError("once")]
    context, ends = world.control()

    async def all_confirmed() -> None:
        if failures:
            raise failures.pop()

    stage = CommandStage(
        context,
        ends,
        cast("AIOKafkaConsumer", consumer),
        all_confirmed=all_confirmed,
        steady_since=world.steady_since,
    )
    working = asyncio.create_task(_forever("commands", cast("AIOKafkaConsumer", consumer), stage.run, stop))
    async with asyncio.timeout(10):
        while consumer.saved != 2:
            await asyncio.sleep(0)
    stop.set()
    await working
    assert {result.request_id: result.status for result in world.results().values()} == {
        "r-1": State.CANCELLED,
        "r-2": State.CANCELLED,
    }


async def test_a_cancellation_that_nobody_asked_for_is_an_error_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiokafka lets one of its own get out while Kafka is away."""
    monkeypatch.setattr(control, "AFTER_ERROR_SECONDS", 0.0)
    stop, runs = asyncio.Event(), 0

    async def work(_stop: asyncio.Event) -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise asyncio.CancelledError
        stop.set()

    await _forever("x", cast("AIOKafkaConsumer", KeptLogConsumer("llm.results")), work, stop)
    assert runs == 2


async def test_work_that_ignores_its_cancellation_does_not_keep_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "STOP_SECONDS", 0.04)
    stop, is_over = asyncio.Event(), asyncio.Event()

    async def deaf(_stop: asyncio.Event) -> None:
        try:
            await is_over.wait()
        except asyncio.CancelledError:
            await is_over.wait()

    asyncio.get_running_loop().call_soon(stop.set)
    async with asyncio.timeout(10):
        await _forever("x", cast("AIOKafkaConsumer", KeptLogConsumer("llm.results")), deaf, stop)
    is_over.set()


async def test_a_partition_that_is_written_to_all_the_time_is_caught_up_with() -> None:
    """Each poll finds new results; those from before the question are confirmed all the same."""
    world = World()
    consumer = KeptLogConsumer("llm.results", on_poll=lambda: add_result(consumer, f"new-{len(consumer.records)}"))
    add_result(consumer, "r-1")
    assert await confirmer_of(world, consumer).caught_up() == {0}


async def test_a_result_with_headers_of_somebody_elses_holds_nothing_up() -> None:
    world = World()
    await Flow(world).send(request("good"))
    consumer = KeptLogConsumer("llm.results")
    for version in ("\N{SUPERSCRIPT TWO}".encode(), b"9" * 5000, b"-1", b""):
        add_result(consumer, "odd", version=version)
    consumer.add(key=b"\xff\xfe", headers=[("ce_state", b"completed"), ("ce_sequence", b"3")])
    add_result(consumer, "good")
    await confirmer_of(world, consumer).poll()
    (known,) = await world.state.look(["good"])
    assert known.state is State.COMPLETED


async def test_all_is_confirmed_once_it_is_committed_by_whoever_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirming, "POLL_MS", 0)
    consumer = KeptLogConsumer("llm.results")
    confirmer = confirmer_of(World(), consumer)
    async with asyncio.timeout(10):
        await confirmer.all_confirmed()  # nothing was ever written
    add_result(consumer, "r-1")
    waiting = asyncio.create_task(confirmer.all_confirmed())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waiting.done()
    await confirmer.poll()
    async with asyncio.timeout(10):
        await waiting


async def test_nobody_waits_for_results_that_are_deleted_by_their_age() -> None:
    consumer = KeptLogConsumer("llm.results")
    add_result(consumer, "r-1")
    consumer.first = 1
    async with asyncio.timeout(10):
        await confirmer_of(World(), consumer).all_confirmed()


async def test_what_ended_while_redis_was_away_is_not_cancelled_as_well() -> None:
    """Its worker died before it could note the end; Kafka has the result, and the command comes first."""
    world = World()
    await Flow(world).send(request())
    consumer: Any = KeptLogConsumer("llm.results")
    add_result(consumer, "r-1")
    confirmer = confirmer_of(world, consumer)
    context, ends = world.control()

    async def all_confirmed() -> None:
        await confirmer.poll()
        await confirmer.all_confirmed()

    stage = CommandStage(context, ends, consumer, all_confirmed=all_confirmed, steady_since=world.steady_since)
    command = Command(command_id="c", issued_at=START, tenant_id="default")
    assert await stage.carry_out(command) == 0
    assert world.results() == {}


async def test_sweeps_go_on_whatever_the_wall_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands still here; one that is set back would put the next sweep off by as much."""
    monkeypatch.setattr(control, "SWEEP_SECONDS", 0.001)
    world, stop, swept = World(), asyncio.Event(), 0
    context, ends = world.control()
    confirmer = ResultConfirmer(context, cast("AIOKafkaConsumer", KeptLogConsumer("llm.results")))

    class Counting(DeadlineSweeper):
        async def sweep(self) -> int:
            nonlocal swept
            swept += 1
            if swept == 3:
                stop.set()
            return 0

    async with asyncio.timeout(10):
        await control._sweep(confirmer, Counting(context, ends, confirmer, steady_since=world.steady_since), stop)
    assert swept == 3
