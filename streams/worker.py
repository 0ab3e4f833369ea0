"""One worker process: builds a stage with its connections, runs it until told to stop, and drains it.

On SIGTERM or SIGINT: read no more; let running calls end for `worker.drain_seconds`; end the rest, uncommitted, and
give their leases back; commit what is done; leave the group. Another worker goes on at once.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import faust
import structlog

from connectors.kafka.client import client_options
from connectors.kafka.faust_transport import is_member
from connectors.kafka.producer import Producer
from connectors.kafka.reader import partitions_of
from connectors.ops import OpsServer, Readiness
from connectors.providers.pricing_file import load_prices
from connectors.providers.recorder import with_recording
from connectors.providers.registry import PROVIDER_TYPES, build_provider
from connectors.schema_registry import open_codec
from connectors.settings import Settings
from connectors.state.redis_store import RedisStateStore
from connectors.stopping import end_process_after, stop_event
from policy.catalogue import Catalogue
from schemas.topics import Topics
from schemas.vocabulary import Priority
from streams.context import StageContext
from streams.ending import Ending
from streams.faust_app import build_app
from streams.intake import Intake
from streams.lane import Lane
from streams.leases import Interruption, LeaseKeeper
from streams.pool import Pool
from streams.records import RecordWriter

log = structlog.get_logger(__name__)

RECORDS_PER_CALL_SLOT = 2
"""Records a lane holds beyond its calls: those that wait for somebody else's lease must not take up call slots."""
APP_STOP_SECONDS = 10.0
SETTLE_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """What the runner needs of a stage."""

    role: str
    group: str
    topic: str
    writes: tuple[str, ...]
    pool: Pool
    interrupt: Callable[[], int]


async def run_intake(settings: Settings, catalogue: Catalogue) -> int:
    """Runs an intake worker until it is told to stop. Returns the exit code."""
    async with AsyncExitStack() as stack:
        context = await stack.enter_async_context(_open_context(settings, catalogue))
        ending = await stack.enter_async_context(_open_ending(context, "/sluice/intake"))
        intake = Intake(context, ending)
        pool = Pool(intake.handle, limit=settings.worker.intake_concurrency, stage="intake")
        stage = Stage(
            role="intake",
            group=f"{settings.topic_prefix}sluice.intake",
            topic=settings.topics.requests,
            writes=(
                *(topic for name in catalogue.providers for topic in settings.topics.lanes(name).values()),
                *_ending_topics(settings.topics),
            ),
            pool=pool,
            interrupt=lambda: 0,
        )
        return await _run(stage, settings)


async def run_lane(settings: Settings, catalogue: Catalogue, provider_name: str) -> int:
    """Runs a worker of one provider's lane until it is told to stop. Returns the exit code."""
    entry = catalogue.providers[provider_name]
    concurrency = entry.concurrency or PROVIDER_TYPES[entry.type].default_concurrency or settings.worker.concurrency
    async with AsyncExitStack() as stack:
        provider = with_recording(build_provider(provider_name, entry), os.environ)
        stack.push_async_callback(provider.close)
        context = await stack.enter_async_context(_open_context(settings, catalogue))
        leases = LeaseKeeper(context.state, lease_seconds=settings.worker.lease_seconds)
        leases.start()
        stack.push_async_callback(leases.close)
        ending = await stack.enter_async_context(_open_ending(context, f"/sluice/lane/{provider_name}"))
        lane = Lane(
            context,
            name=provider_name,
            entry=entry,
            provider=provider,
            prices=load_prices(),
            concurrency=concurrency,
            leases=leases,
            ending=ending,
        )
        pool = Pool(lane.handle, limit=concurrency * RECORDS_PER_CALL_SLOT, stage="lane")
        stage = Stage(
            role=f"lane-{provider_name}",
            group=f"{settings.topic_prefix}sluice.lane.{provider_name}",
            topic=settings.topics.lane(provider_name, Priority.NORMAL),
            writes=(settings.topics.deltas, *settings.worker.result_topics, *_ending_topics(settings.topics)),
            pool=pool,
            interrupt=lambda: leases.interrupt_all(Interruption.SHUTDOWN),
        )
        return await _run(stage, settings)


def _ending_topics(topics: Topics) -> tuple[str, ...]:
    return (topics.status, topics.results, topics.attempts, topics.dead_letters)


@asynccontextmanager
async def _open_context(settings: Settings, catalogue: Catalogue) -> AsyncIterator[StageContext]:
    async with AsyncExitStack() as stack:
        state = RedisStateStore.from_settings(settings.redis, settings.redis_url, namespace=settings.topic_prefix)
        stack.push_async_callback(state.close)
        codec = await stack.enter_async_context(
            open_codec(
                settings,
                settings.topics.specs(list(catalogue.providers)),
                auto_register=settings.registry.auto_register,
            )
        )
        producer = Producer(
            client_options(settings),
            linger_ms=settings.kafka.linger_ms,
            max_in_flight=settings.kafka.max_sends_in_flight,
        )
        await stack.enter_async_context(producer)
        yield StageContext(
            settings=settings,
            catalogue=catalogue,
            state=state,
            producer=producer,
            codec=codec,
            worker=f"{socket.gethostname()}:{os.getpid()}",
        )


@asynccontextmanager
async def _open_ending(context: StageContext, source: str) -> AsyncIterator[Ending]:
    ending = Ending(context, RecordWriter(context.codec, context.settings.topics, source))
    ending.start()
    try:
        yield ending
    finally:
        await ending.close()


async def _run(stage: Stage, settings: Settings) -> int:
    stop = stop_event()
    await partitions_of(client_options(settings), [stage.topic, *stage.writes])
    app = build_app(
        group=stage.group,
        topic=stage.topic,
        pool=stage.pool,
        client_options=client_options(settings),
        settings=settings.worker,
    )
    readiness = Readiness(
        checks={
            # A worker without partitions is ready too: it stands by where workers outnumber them.
            "member_of_group": lambda: is_member(app),
            "not_stopping": lambda: not stop.is_set(),
        }
    )
    ops = OpsServer(settings.ops, readiness, role=stage.role)
    await ops.start()
    try:
        await _until_either(stop, app.start())
        if not stop.is_set():
            log.info("worker_started", group=stage.group, topic=stage.topic)
            await _until_either(stop, app.wait_until_stopped())
        log.info("worker_stopping", in_flight=stage.pool.in_flight, crashed=app.crashed)
        drain_seconds = settings.worker.drain_seconds
        end_process_after(drain_seconds + 2 * SETTLE_SECONDS + 2 * APP_STOP_SECONDS)
        await _drain(stage, drain_seconds)
        return 1 if app.crashed else 0
    finally:
        await _stop_app(app)
        await ops.close()
        log.info("worker_stopped")


async def _until_either(stop: asyncio.Event, work: Coroutine[Any, Any, object]) -> None:
    """Until a signal, or until `work` is done; its error, if it has one, is raised."""
    signalled = asyncio.create_task(stop.wait())
    working = asyncio.create_task(work)
    await asyncio.wait([signalled, working], return_when=asyncio.FIRST_COMPLETED)
    signalled.cancel()
    if working.done():
        working.result()
    else:
        working.cancel()


async def _drain(stage: Stage, drain_seconds: float) -> None:
    if await stage.pool.drain(drain_seconds):
        return
    interrupted = stage.interrupt()
    cancelled = 0
    # Interrupted calls give back their leases; whoever has its answer already may still settle and publish.
    if not await stage.pool.drain(SETTLE_SECONDS):
        cancelled = await stage.pool.cancel()
    log.warning("left_uncommitted", calls_interrupted=interrupted, records_cancelled=cancelled)


async def _stop_app(app: faust.App) -> None:
    """Commits what is done and leaves the group. Bounded: with Kafka away there is nobody to leave.

    Waited for rather than cancelled: Faust's commit swallows a cancellation, and tries again.
    """

    async def commit_and_stop() -> None:
        if app.started and not app.crashed:
            await app.consumer.commit()
        await app.stop()

    stopping = asyncio.create_task(commit_and_stop())
    done, _ = await asyncio.wait({stopping}, timeout=APP_STOP_SECONDS)
    if not done:
        log.warning("stop_timed_out", seconds=APP_STOP_SECONDS)
    elif stopping.exception() is not None:
        log.warning("stop_failed", error=repr(stopping.exception()))
