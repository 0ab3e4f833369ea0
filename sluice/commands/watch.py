"""`sluice watch`: status events as a live table, or as lines."""

import asyncio
import time
from collections import OrderedDict
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from aiokafka import ConsumerRecord
from rich.console import Console

from connectors.kafka.access import KafkaAccessError, check_access
from connectors.kafka.client import client_options
from connectors.kafka.reader import Start, TopicReader
from connectors.schema_registry import open_codec
from connectors.settings import Settings
from schemas import StatusEvent
from schemas.codec import Codec, CodecError
from sluice.commands.endings import fail, kafka_problems, misused
from sluice.commands.interrupts import Interrupts
from sluice.commands.loading import configure_command_logs, settings_or_exit
from sluice.commands.watch_views import Lines, Screen, View

EXIT_TIMEOUT = 3
NAMED_SINCE_SECONDS = 3600.0
"""How far back requests are looked for that were named: they may have ended before anybody looked."""
REMEMBERED = 10_000
"""Requests whose newest state is known, so that a repeated event is not shown again."""
POLL_SECONDS = 0.125
SILENCE_SECONDS = 5.0
"""After so long without an event Kafka is asked whether it is there: a reader by itself says nothing."""


def watch(
    request_ids: Annotated[list[str] | None, typer.Argument(help="Only these.", show_default=False)] = None,
    *,
    since: Annotated[
        float | None,
        typer.Option(
            help="Begin this many seconds ago.", min=0, show_default=f"{NAMED_SINCE_SECONDS:g} with names, else 0"
        ),
    ] = None,
    until_done: Annotated[bool, typer.Option("--until-done", help="End when all named requests have ended.")] = False,
    timeout: Annotated[
        float | None, typer.Option(help="End after this many seconds.", min=0.1, show_default="never")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print events as JSON lines, as they come.")] = False,
) -> None:
    """Watch requests move, newest first, until Ctrl-C.

    On a terminal this is a table that changes in place; elsewhere each change is a line.

    \b
    Examples:
      sluice watch
      sluice watch --since 600
      sluice watch a-1 a-2 --until-done
      sluice watch --json | jq -c '[.request_id, .state]'

    \b
    Exit codes:
      0  ended by Ctrl-C, --timeout, or --until-done: all named ones have ended
      2  called wrongly, or the settings are not valid
      3  with --until-done: --timeout came first
      4  Kafka could not be used, or the topics do not exist
    """
    settings = settings_or_exit()
    configure_command_logs(settings, command="watch")
    names = frozenset(request_ids or ())
    if until_done and not names:
        misused("--until-done needs to know which requests: sluice watch a-1 a-2 --until-done")
    since_seconds = since if since is not None else NAMED_SINCE_SECONDS if names else 0.0
    watcher = _Watcher(settings=settings, names=names, since_seconds=since_seconds, until_done=until_done)
    console = Console(highlight=False)
    view = Screen(console) if console.is_terminal and not as_json else Lines(as_json=as_json)
    with Interrupts() as interrupts, kafka_problems(settings):
        try:
            interrupts.run(watcher.run(view, timeout))
        except KeyboardInterrupt:
            return
        except TimeoutError:
            if until_done:
                missing = ", ".join(sorted(names - watcher.ended))
                fail(f"Not ended within {timeout:g} s: {missing}", EXIT_TIMEOUT)


@dataclass(kw_only=True)
class _Watcher:
    """Follows the status topic, and knows which of the named requests have ended."""

    settings: Settings
    names: frozenset[str]
    since_seconds: float
    until_done: bool
    ended: set[str] = field(default_factory=set)
    _versions: OrderedDict[str, int] = field(default_factory=OrderedDict)

    async def run(self, view: View, timeout_seconds: float | None) -> None:
        settings = self.settings
        start: Start = datetime.now(UTC) - timedelta(seconds=self.since_seconds) if self.since_seconds else "end"
        await check_access(settings)
        async with asyncio.timeout(timeout_seconds), AsyncExitStack() as context:
            codec = await context.enter_async_context(open_codec(settings, []))
            reader = TopicReader(client_options(settings), [settings.topics.status], start=start)
            await context.enter_async_context(reader)
            context.enter_context(view)
            await self._follow(reader, codec, view)

    async def _follow(self, reader: TopicReader, codec: Codec, view: View) -> None:
        heard_at, is_away = time.monotonic(), False
        while not (self.until_done and self.ended >= self.names):
            records = await reader.some(timeout_ms=int(POLL_SECONDS * 1000))
            for record in records:
                event = await self._event_of(record, codec)
                if event is not None and self._is_news(event):
                    view.show(event)
            view.refresh()
            if records:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > SILENCE_SECONDS:
                is_away = await self._look_for_kafka(view, was_away=is_away)
                heard_at = time.monotonic()

    async def _look_for_kafka(self, view: View, *, was_away: bool) -> bool:
        try:
            await check_access(self.settings)
        except KafkaAccessError as error:
            if not was_away:
                view.tell(f"{error} Watching on.")
            return True
        if was_away:
            view.tell(f"Kafka at {self.settings.kafka_bootstrap} is back.")
        return False

    async def _event_of(self, record: ConsumerRecord, codec: Codec) -> StatusEvent | None:
        # Most of a busy topic is somebody else's, which is known by the key: reading it would take the time.
        if self.names and (record.key or b"").decode(errors="replace") not in self.names:
            return None
        try:
            return await codec.decode(StatusEvent, record.value or b"")
        except CodecError:
            return None

    def _is_news(self, event: StatusEvent) -> bool:
        if self._versions.get(event.request_id, -1) >= event.state_version:
            return False
        self._versions[event.request_id] = event.state_version
        self._versions.move_to_end(event.request_id)
        if len(self._versions) > max(REMEMBERED, len(self.names)):
            self._versions.popitem(last=False)
        if self.names and event.state.is_terminal:
            self.ended.add(event.request_id)
        return True
