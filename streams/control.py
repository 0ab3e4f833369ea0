"""The control role: what concerns requests that no lane is working on.

Waits before a retry, deadlines, cancellations, and the confirmation of what is in Kafka. All of it may run in several
processes: they share the partitions, and every end has one winner in the shared state.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import structlog
from aiokafka import AIOKafkaConsumer

from connectors import metrics
from connectors.kafka.client import client_options
from connectors.kafka.group_consumer import group_consumer, rewind
from connectors.kafka.reader import partitions_of
from connectors.ops import OpsServer, Readiness
from connectors.settings import Settings
from connectors.state.redis_shared_values import RedisSharedValues
from connectors.stopping import end_process_after, stop_event
from policy.catalogue import Catalogue
from streams.called_alone import CalledAlone
from streams.commands import CommandStage
from streams.confirming import ResultConfirmer
from streams.deadlines import DeadlineSweeper
from streams.delay import DelayStage
from streams.ending import Ending
from streams.outside_ends import OutsideEnds
from streams.process import background, ending_topics, open_context
from streams.records import RecordWriter
from streams.steadiness import Steadiness
from streams.steps_back import StepsBack

log = structlog.get_logger(__name__)

SWEEP_SECONDS = 0.5
AFTER_ERROR_SECONDS = 1.0
STOP_SECONDS = 20.0

Work = Callable[[asyncio.Event], Awaitable[None]]


async def run_control(settings: Settings, catalogue: Catalogue) -> int:
    """Runs a control worker until it is told to stop. Returns the exit code."""
    stop = stop_event()
    topics = settings.topics
    lanes = [topic for name in catalogue.providers for topic in topics.lanes(name).values()]
    reads = (topics.commands, topics.results, *topics.retries.values())
    await partitions_of(
        client_options(settings), [*reads, *lanes, *settings.worker.result_topics, *ending_topics(topics)]
    )
    async with AsyncExitStack() as stack:
        context = await stack.enter_async_context(open_context(settings, catalogue))
        # Before the groups are joined: by then it has answered for long enough.
        steadiness = Steadiness(context.state.outstanding, timeout_seconds=settings.redis.timeout_seconds)
        await stack.enter_async_context(background(steadiness.run(), name="steadiness"))
        ending = Ending(context, RecordWriter(context.codec, topics, "/sluice/control"))
        assignments = [_Assignment() for _ in range(3)]
        delayed = await _consumer(stack, settings, "delay", tuple(topics.retries.values()), assignments[0])
        results = await _consumer(stack, settings, "confirm", (topics.results,), assignments[1])
        commands = await _consumer(stack, settings, "commands", (topics.commands,), assignments[2])
        delay = DelayStage(context, ending, delayed)
        confirmer = ResultConfirmer(context, results)
        values = RedisSharedValues.from_settings(settings.redis, settings.redis_url, namespace=settings.topic_prefix)
        stack.push_async_callback(values.close)
        steps_back = StepsBack(values, worker=context.worker)
        ends = OutsideEnds(context, ending, CalledAlone(settings).among)
        sweeper = DeadlineSweeper(
            context, ends, confirmer, steady_since=steadiness.since, has_gone_back=steps_back.has_gone_back
        )
        carrying_out = CommandStage(
            context, ends, commands, all_confirmed=confirmer.all_confirmed, steady_since=steadiness.since
        )
        readiness = Readiness(
            checks={
                "member_of_groups": lambda: all(assignment.has_joined for assignment in assignments),
                "not_stopping": lambda: not stop.is_set(),
            }
        )
        ops = OpsServer(settings.ops, readiness, role="control")
        await ops.start()
        stack.push_async_callback(ops.close)
        log.info("worker_started", role="control")
        await asyncio.gather(
            _forever("delay", delayed, delay.run, stop),
            _forever("deadlines", results, lambda stopping: _sweep(confirmer, sweeper, stopping), stop),
            _forever("commands", commands, carrying_out.run, stop),
        )
        end_process_after(STOP_SECONDS)
    log.info("worker_stopped")
    return 0


async def _sweep(confirmer: ResultConfirmer, sweeper: DeadlineSweeper, stop: asyncio.Event) -> None:
    # A wall clock that is set back would put the next sweep off by as much.
    clock = asyncio.get_running_loop().time
    next_at = clock()
    while not stop.is_set():
        await confirmer.poll()
        if clock() >= next_at:
            await sweeper.sweep()
            next_at = clock() + SWEEP_SECONDS


async def _forever(name: str, consumer: AIOKafkaConsumer, work: Work, stop: asyncio.Event) -> None:
    """Runs `work` until it returns after `stop`. An error is logged, and it begins again with what is not committed."""

    async def from_committed() -> None:
        # An error leaves the consumer behind records that nobody has worked on.
        await rewind(consumer)
        await work(stop)

    while not stop.is_set():
        working = asyncio.ensure_future(from_committed())
        stopping = asyncio.ensure_future(_stopped_for(stop, STOP_SECONDS))
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait([working], timeout=STOP_SECONDS / 4)
            log.warning("left_uncommitted", stage=name)
            return
        # With Kafka away a cancellation inside of aiokafka gets out, and would pass for ours.
        error = asyncio.CancelledError() if working.cancelled() else working.exception()
        if error is not None:
            metrics.stage_errors.labels(name).inc()
            log.error("stage_error", stage=name, exc_info=error)
            await asyncio.sleep(AFTER_ERROR_SECONDS)


async def _stopped_for(stop: asyncio.Event, seconds: float) -> None:
    """Returns when work that does not heed `stop` is to be ended: with Redis away a step waits without end."""
    await stop.wait()
    await asyncio.sleep(seconds / 4)


class _Assignment:
    """Notes that a consumer has joined its group."""

    def __init__(self) -> None:
        self.has_joined = False

    def __call__(self) -> None:
        self.has_joined = True


async def _consumer(
    stack: AsyncExitStack, settings: Settings, name: str, topics: Sequence[str], assignment: _Assignment
) -> AIOKafkaConsumer:
    consumer = group_consumer(
        client_options(settings),
        group=settings.control_group(name),
        topics=topics,
        session_timeout_seconds=settings.worker.session_timeout_seconds,
        on_assigned=assignment,
    )
    await consumer.start()
    stack.push_async_callback(consumer.stop)
    return consumer
