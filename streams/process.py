"""What every worker process does around its stage: connections, readiness, signals, and an orderly end."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import faust
import structlog

from connectors.kafka.client import client_options
from connectors.kafka.faust_transport import is_member
from connectors.kafka.groups import has_committed
from connectors.kafka.producer import Producer
from connectors.kafka.reader import partitions_of
from connectors.kafka.record_fetch import RecordFetcher
from connectors.ops import OpsServer, Readiness
from connectors.schema_registry import open_codec
from connectors.settings import Settings
from connectors.state.redis_store import RedisStateStore
from connectors.state.store import ClaimStore, StateStore
from connectors.stopping import end_process_after, stop_event
from policy.catalogue import Catalogue
from schemas.topics import Topics
from streams.context import StageContext
from streams.deliveries import KafkaOriginals
from streams.faust_app import build_app
from streams.records_at_work import RecordRunner

log = structlog.get_logger(__name__)

APP_STOP_SECONDS = 10.0
SETTLE_SECONDS = 5.0


@dataclass(kw_only=True, slots=True)
class Stage:
    """What the process needs of a stage. `app` is there once it runs."""

    role: str
    group: str
    topics: tuple[str, ...]
    writes: tuple[str, ...]
    runner: RecordRunner
    interrupt: Callable[[], int] = lambda: 0
    app: faust.App | None = None


def ending_topics(topics: Topics) -> tuple[str, ...]:
    """What every stage that ends requests writes to."""
    return (topics.status, topics.results, topics.attempts, topics.dead_letters)


@asynccontextmanager
async def open_context(
    settings: Settings, catalogue: Catalogue, *, claims_of: Callable[[StateStore], ClaimStore] = lambda state: state
) -> AsyncIterator[StageContext]:
    """The connections of a worker process. `claims_of` makes what its claims go through, from the shared state."""
    options = client_options(settings)
    async with AsyncExitStack() as stack:
        state = RedisStateStore.from_settings(
            settings.redis,
            settings.redis_url,
            namespace=settings.topic_prefix,
            has_history=partial(has_committed, options, settings.intake_group),
        )
        stack.push_async_callback(state.close)
        codec = await stack.enter_async_context(
            open_codec(
                settings,
                settings.topics.specs(list(catalogue.providers)),
                auto_register=settings.registry.auto_register,
            )
        )
        producer = Producer(
            options, linger_ms=settings.kafka.linger_ms, max_in_flight=settings.kafka.max_sends_in_flight
        )
        await stack.enter_async_context(producer)
        fetcher = await stack.enter_async_context(RecordFetcher(options))
        yield StageContext(
            settings=settings,
            catalogue=catalogue,
            state=state,
            claims=claims_of(state),
            producer=producer,
            codec=codec,
            originals=KafkaOriginals(fetcher),
            worker=f"{socket.gethostname()}:{os.getpid()}",
        )


@asynccontextmanager
async def background(work: Coroutine[Any, Any, None], *, name: str) -> AsyncIterator[None]:
    """Runs `work` beside the block, and ends it with the block."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def run_stage(stage: Stage, settings: Settings) -> int:
    """Runs the stage's Faust application until a signal comes, or until it ends by itself. Returns the exit code."""
    stop = stop_event()
    await partitions_of(client_options(settings), [*stage.topics, *stage.writes])
    app = stage.app = build_app(
        group=stage.group,
        topics=stage.topics,
        runner=stage.runner,
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
        await until_either(stop, app.start())
        if not stop.is_set():
            log.info("worker_started", group=stage.group, topics=stage.topics)
            await until_either(stop, app.wait_until_stopped())
        log.info("worker_stopping", in_flight=stage.runner.in_flight, crashed=app.crashed)
        drain_seconds = settings.worker.drain_seconds
        end_process_after(drain_seconds + 2 * SETTLE_SECONDS + 2 * APP_STOP_SECONDS)
        await _drain(stage, drain_seconds)
        return 1 if app.crashed else 0
    finally:
        await _stop_app(app)
        await ops.close()
        log.info("worker_stopped")


async def until_either(stop: asyncio.Event, work: Coroutine[Any, Any, object]) -> None:
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
    if await stage.runner.drain(drain_seconds):
        return
    interrupted = stage.interrupt()
    cancelled = 0
    # Interrupted calls give back their leases; whoever has its answer already may still settle and publish.
    if not await stage.runner.drain(SETTLE_SECONDS):
        cancelled = await stage.runner.cancel()
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
