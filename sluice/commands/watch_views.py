"""How `sluice watch` shows events: as lines, or as a table that changes in place."""

import time
from collections import OrderedDict
from typing import Protocol, Self

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from schemas import StatusEvent
from schemas.vocabulary import State
from sluice.commands.endings import note

ROWS_REMEMBERED = 1000
LINES_AROUND_ROWS = 4
WIDTH_BESIDE_ID = 57
REDRAW_SECONDS = 0.125
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


class View(Protocol):
    """Entered while events are followed. `refresh` is called between batches, also when there was none."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, event: StatusEvent) -> None: ...

    def refresh(self) -> None: ...

    def tell(self, message: str) -> None: ...


class Lines:
    """An event a line."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def show(self, event: StatusEvent) -> None:
        typer.echo(event.model_dump_json(exclude_none=True) if self._as_json else "  ".join(_cells(event)).rstrip())

    def refresh(self) -> None:
        """A line is shown at once."""

    def tell(self, message: str) -> None:
        note(message)


class Screen:
    """A table that is drawn anew a few times a second, however many events there are."""

    def __init__(self, console: Console) -> None:
        self._newest: OrderedDict[str, StatusEvent] = OrderedDict()
        self._live = Live(console=console, auto_refresh=False)
        self._drawn_at = 0.0
        self._is_stale = True

    def __enter__(self) -> Self:
        self._live.start()
        self._draw()
        return self

    def __exit__(self, *_: object) -> None:
        self._draw()
        self._live.stop()

    def show(self, event: StatusEvent) -> None:
        self._newest[event.request_id] = event
        self._newest.move_to_end(event.request_id, last=False)
        if len(self._newest) > ROWS_REMEMBERED:
            self._newest.popitem()
        self._is_stale = True

    def refresh(self) -> None:
        if self._is_stale and time.monotonic() - self._drawn_at >= REDRAW_SECONDS:
            self._draw()

    def tell(self, message: str) -> None:
        self._live.console.print(message, markup=False)

    def _draw(self) -> None:
        self._live.update(self._table(), refresh=True)
        self._drawn_at, self._is_stale = time.monotonic(), False

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim")
        # Where it is narrow, ids and reasons are cut: the rest means nothing without its end.
        id_width = max(12, self._live.console.width - WIDTH_BESIDE_ID)
        table.add_column("request", no_wrap=True, overflow="ellipsis", max_width=id_width)
        for name, width in (("state", 15), ("provider", 10), ("attempt", 7), ("after", 8)):
            table.add_column(name, no_wrap=True, min_width=width)
        table.add_column("reason", no_wrap=True, overflow="ellipsis")
        for event in list(self._newest.values())[: max(1, self._live.console.height - LINES_AROUND_ROWS)]:
            request_id, state, *rest = _cells(event)
            table.add_row(request_id, Text(state, style=STYLES[event.state]), *rest)
        return table


def _cells(event: StatusEvent) -> list[str]:
    seconds = (event.occurred_at - event.submitted_at).total_seconds()
    attempt = str(event.attempt or "")
    return [event.request_id, event.state, event.provider or "", attempt, f"{seconds:.2f} s", event.reason or ""]
