"""One run of the demo against a running system: sends all pairs, follows results and events, reports."""

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from uuid import uuid4

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from connectors.kafka.client import client_options
from connectors.kafka.reader import TopicReader
from connectors.schema_registry import open_codec
from connectors.settings import Settings
from schemas import LLMRequest, LLMResult, StatusEvent
from schemas.codec import Codec
from schemas.envelope import header
from sluice.client import Client, unique_results
from sluice.demo.essays import Essay, pair_requests
from sluice.demo.report import Report


class DemoProvider(StrEnum):
    """Who judges."""

    SIMULATED = "simulated"
    OPENAI = "openai"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to run."""

    essays: list[Essay]
    provider: DemoProvider
    model: str | None
    rate: float
    timeout_seconds: float
    keep: bool
    open_page: bool


async def run_demo(settings: Settings, plan: Plan, console: Console) -> Report:
    """Sends a comparison for each pair and waits until all have ended, or the time is over."""
    run = f"demo-{uuid4().hex[:8]}"
    pairs = pair_requests(plan.essays, run=run, provider=plan.provider, model=plan.model)
    options = client_options(settings)
    async with AsyncExitStack() as stack:
        codec = await stack.enter_async_context(open_codec(settings))
        results_reader = await stack.enter_async_context(TopicReader(options, [settings.topics.results]))
        status_reader = await stack.enter_async_context(TopicReader(options, [settings.topics.status]))
        client = await stack.enter_async_context(Client(settings, source="/sluice/demo"))
        began = time.monotonic()
        sending = asyncio.create_task(_send(client, [request for _, _, request in pairs], rate=plan.rate))
        results = await _collect(
            results_reader, codec, run, len(pairs), timeout_seconds=plan.timeout_seconds, console=console
        )
        await sending
        seconds = time.monotonic() - began
        events = await _terminal_events(status_reader, codec, run)
    return Report(
        pairs=tuple((first, second, request.request_id) for first, second, request in pairs),
        results=results,
        events=tuple(events),
        seconds=seconds,
    )


async def _send(client: Client, requests: list[LLMRequest], *, rate: float) -> None:
    """At a steady pace: a burst would measure the queue in front of the provider, and be over too soon to watch."""
    for request in requests:
        await client.submit(request)
        await asyncio.sleep(1 / rate)


async def _collect(
    reader: TopicReader, codec: Codec, run: str, expected: int, *, timeout_seconds: float, console: Console
) -> dict[str, LLMResult]:
    results: dict[str, LLMResult] = {}
    columns = (TextColumn("comparing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=console.quiet or not sys.stderr.isatty()) as progress:
        bar = progress.add_task("comparing", total=expected)
        try:
            async with asyncio.timeout(timeout_seconds):
                async for result in unique_results(reader, codec):
                    if result.correlation_id == run:
                        results[result.request_id] = result
                        progress.update(bar, completed=len(results))
                    if len(results) == expected:
                        break
        except TimeoutError:
            console.print(f"{expected - len(results)} requests had no result within {timeout_seconds:g} s.")
    return results


async def _terminal_events(reader: TopicReader, codec: Codec, run: str) -> list[tuple[str | None, StatusEvent]]:
    """All terminal events of the run that are in Kafka by now; each result's own was written with it."""
    events: list[tuple[str | None, StatusEvent]] = []
    for record in await reader.rest():
        event = await codec.decode(StatusEvent, record.value or b"")
        if event.correlation_id == run and event.state.is_terminal:
            events.append((header(record.headers, "ce_id"), event))
    return events
