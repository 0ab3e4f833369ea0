"""One run of the demo against a running system: sends all pairs, follows results and events, reports."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from connectors.kafka.client import client_options
from connectors.kafka.reader import TopicReader
from connectors.schema_registry import open_codec
from connectors.settings import Settings
from schemas import LLMRequest, LLMResult, StatusEvent
from schemas.codec import Codec
from schemas.envelope import header
from sluice.client import Client
from sluice.demo.essays import pair_requests
from sluice.demo.plan import Plan
from sluice.demo.report import Report
from sluice.results import read_result

CHECK_MS = 500
LAST_EVENTS_SECONDS = 30.0


async def run_demo(settings: Settings, plan: Plan, console: Console, *, check: Callable[[], None]) -> Report:
    """Sends a comparison for each pair and waits until all have ended, or the time is over.

    `check` is called about twice a second, and raises what should end the run.
    """
    pairs = pair_requests(plan.essays, run=plan.run, provider=plan.provider, model=plan.model)
    options, topics = client_options(settings), settings.topics
    async with AsyncExitStack() as context:
        codec = await context.enter_async_context(open_codec(settings, []))
        results_reader = await context.enter_async_context(TopicReader(options, [topics.results]))
        status_reader = await context.enter_async_context(TopicReader(options, [topics.status]))
        client = await context.enter_async_context(Client(settings, source="/sluice/demo"))
        began = time.monotonic()
        requests = [request for _, _, request in pairs]
        sending = await context.enter_async_context(_sending(client, requests, rate=plan.rate))

        def check_all() -> None:
            check()
            if sending.done():
                sending.result()

        results = await _collect(results_reader, codec, plan, expected=len(pairs), console=console, check=check_all)
        seconds = time.monotonic() - began
        events = await _terminal_events(status_reader, codec, plan.run)
    return Report(
        run=plan.run,
        pairs=tuple((first, second, request.request_id) for first, second, request in pairs),
        results=results,
        events=tuple(events),
        seconds=seconds,
    )


async def _send(client: Client, requests: list[LLMRequest], *, rate: float) -> None:
    """At a steady pace: a burst would measure the queue in front of the provider, and be over too soon to watch."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number, request in enumerate(requests):
        await asyncio.sleep(began + number / rate - loop.time())
        await client.submit(request)


@asynccontextmanager
async def _sending(client: Client, requests: list[LLMRequest], *, rate: float) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(_send(client, requests, rate=rate))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _collect(
    reader: TopicReader, codec: Codec, plan: Plan, *, expected: int, console: Console, check: Callable[[], None]
) -> dict[str, LLMResult]:
    results: dict[str, LLMResult] = {}
    columns = (TextColumn("comparing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("comparing", total=expected)
        gives_up_at = time.monotonic() + plan.timeout_seconds
        while len(results) < expected and time.monotonic() < gives_up_at:
            for record in await reader.some(timeout_ms=CHECK_MS):
                result = await read_result(codec, record)
                if result is not None and result.correlation_id == plan.run:
                    results.setdefault(result.request_id, result)
            progress.update(bar, completed=len(results))
            check()
    return results


async def _terminal_events(reader: TopicReader, codec: Codec, run: str) -> list[tuple[str | None, StatusEvent]]:
    """All terminal events of the run that are in Kafka by now; each result's own was written with it."""
    events: list[tuple[str | None, StatusEvent]] = []
    async with asyncio.timeout(LAST_EVENTS_SECONDS):
        for record in await reader.rest():
            event = await codec.decode(StatusEvent, record.value or b"")
            if event.correlation_id == run and event.state.is_terminal:
                events.append((header(record.headers, "ce_id"), event))
    return events
