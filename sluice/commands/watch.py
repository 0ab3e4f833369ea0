"""`sluice watch`: status events as a live table, or as JSON lines."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from aiokafka.errors import KafkaError
from rich.console import Console
from rich.live import Live
from rich.table import Table

from connectors.kafka.client import client_options
from connectors.kafka.reader import Start, TopicReader
from connectors.logs import configure_logs
from connectors.schema_registry import open_codec
from connectors.settings import Settings
from schemas import StatusEvent
from schemas.codec import Codec, CodecError
from schemas.vocabulary import State
from sluice.commands.loading import settings_or_exit

EXIT_KAFKA = 4
ROWS = 30
REMEMBERED = 3000
REFRESHES_PER_SECOND = 8
STYLES = {
    State.QUEUED: "cyan",
    State.PROCESSING: "yellow",
    State.RETRY_SCHEDULED: "magenta",
    State.COMPLETED: "green",
    State.FAILED: "red",
    State.EXPIRED: "red",
    State.CANCELLED: "dim",
    State.REJECTED: "red",
}


def watch(
    request_ids: Annotated[list[str] | None, typer.Argument(help="Only these.", show_default=False)] = None,
    *,
    since: Annotated[float, typer.Option(help="Begin this many seconds ago.", min=0)] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print events as JSON lines, as they come.")] = False,
    until_done: Annotated[bool, typer.Option("--until-done", help="End when all named requests have ended.")] = False,
) -> None:
    """Watch requests move, newest first, until Ctrl-C.

    \b
    Examples:
      sluice watch
      sluice watch --since 600
      sluice watch a-1 a-2 --since 60 --until-done
      sluice watch --json | jq -c '[.request_id, .state]'

    \b
    Exit codes:
      0    ended (Ctrl-C, or --until-done)
      4    Kafka could not be reached, or the topics do not exist
    """
    settings = settings_or_exit()
    configure_logs(settings.log.model_copy(update={"level": "error"}), role="watch")
    wanted = frozenset(request_ids or ())
    try:
        asyncio.run(
            _watch(settings, wanted, since_seconds=since, as_json=as_json, until_done=until_done and bool(wanted))
        )
    except KeyboardInterrupt:
        return
    except KafkaError as error:
        Console(stderr=True).print(f"Kafka at {settings.kafka_bootstrap}: {error}", style="red", markup=False)
        raise typer.Exit(EXIT_KAFKA) from None


async def _watch(
    settings: Settings, wanted: frozenset[str], *, since_seconds: float, as_json: bool, until_done: bool
) -> None:
    start: Start = datetime.now(UTC) - timedelta(seconds=since_seconds) if since_seconds else "end"
    newest: OrderedDict[str, StatusEvent] = OrderedDict()
    reader = TopicReader(client_options(settings), [settings.topics.status], start=start)
    live = None if as_json else Live(_table(newest), refresh_per_second=REFRESHES_PER_SECOND)
    async with open_codec(settings, []) as codec, reader:
        with live or nullcontext():
            async for record in reader:
                event = await _event_of(codec, record.value or b"")
                if event is None or not _is_news(event, newest, wanted):
                    continue
                newest[event.request_id] = event
                newest.move_to_end(event.request_id, last=False)
                if not wanted and len(newest) > REMEMBERED:
                    newest.popitem()
                if live is None:
                    typer.echo(event.model_dump_json(exclude_none=True))
                else:
                    live.update(_table(newest))
                if until_done and _all_ended(newest, wanted):
                    return


async def _event_of(codec: Codec, value: bytes) -> StatusEvent | None:
    try:
        return await codec.decode(StatusEvent, value)
    except CodecError:
        return None


def _is_news(event: StatusEvent, newest: Mapping[str, StatusEvent], wanted: frozenset[str]) -> bool:
    if wanted and event.request_id not in wanted:
        return False
    known = newest.get(event.request_id)
    return known is None or known.state_version < event.state_version


def _all_ended(newest: OrderedDict[str, StatusEvent], wanted: frozenset[str]) -> bool:
    return all(name in newest and newest[name].state.is_terminal for name in wanted)


def _table(newest: OrderedDict[str, StatusEvent]) -> Table:
    table = Table(title=f"{len(newest)} requests", expand=False)
    for column in ("request", "state", "provider", "model", "attempt", "since submission", "reason"):
        table.add_column(column)
    for event in list(newest.values())[:ROWS]:
        seconds = (event.occurred_at - event.submitted_at).total_seconds()
        table.add_row(
            event.request_id,
            f"[{STYLES[event.state]}]{event.state}[/]",
            event.provider or "",
            event.model or "",
            str(event.attempt or ""),
            f"{seconds:.2f} s",
            event.reason or "",
        )
    return table
