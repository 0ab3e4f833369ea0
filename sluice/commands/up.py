"""`sluice up`: start Kafka and Redis and keep them running."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sluice import stack
from sluice.stack.processes import tail
from sluice.stack.state import Source

_WATCH_SECONDS = 1.0
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


def up(
    *,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Leave it running and return.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the addresses as one JSON object.")] = False,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="SLUICE_STATE_DIR",
            help="Where data, logs and the state file go; else .state of a checkout, else a folder of the user.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Start a Kafka and a Redis on this machine, and stop them at Ctrl-C.

    KAFKA_BOOTSTRAP and REDIS_URL are used where they are set; else Docker
    where an engine answers; else Apache Kafka under Java and a redis-server.
    A stack that runs already is used as it is, and left running.

    \b
    Examples:
      sluice up                  in the foreground, until Ctrl-C
      sluice up --detach         in the background, until `sluice down`
      sluice up --detach --json | jq -r .kafka_bootstrap

    \b
    Exit codes:
      0    stopped as asked
      1    it could not start, or a server crashed
      130  interrupted before it was ready
    """
    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    running: stack.RunningStack | None = None
    away: list[stack.Service] = []
    try:
        with _sigterm_as_interrupt():
            try:
                running = stack.start(state_dir, on_progress=lambda line: notes.print(line, style="dim", markup=False))
                _show(running, as_json=as_json, detach=detach)
                if detach:
                    return
                away = _wait_until_away(running)
            except KeyboardInterrupt:
                if running is None:
                    notes.print("Interrupted before it was ready; what was started is stopped.")
                    raise typer.Exit(EXIT_INTERRUPTED) from None
            _ignore_interrupts()
            raise typer.Exit(_stop(running, away, notes))
    except (stack.StackError, OSError) as error:
        if running is not None:
            running.stop()
        notes.print(str(error), style="red", markup=False)
        raise typer.Exit(EXIT_FAILED) from None


def _wait_until_away(running: stack.RunningStack) -> list[stack.Service]:
    """Return the services that were stopped elsewhere or crashed, once there are any."""
    while True:
        time.sleep(_WATCH_SECONDS)
        if running.away():
            # Killed and started again, as tests do, it is away for a moment.
            time.sleep(_WATCH_SECONDS)
            if away := running.away():
                return away


def _stop(running: stack.RunningStack, away: list[stack.Service], notes: Console) -> int:
    """Tell what is away, stop what we started, and return the exit code."""
    crashed = [service for service in away if service.condition() is stack.Condition.CRASHED]
    for service in away:
        notes.print(f"{service.name.label} {service.condition()}.")
    for service in crashed:
        if log_path := service.log_path():
            notes.print(f"The end of {log_path}:\n{tail(log_path)}", style="red", markup=False)
    stopped = running.stop()
    notes.print(f"Stopped {' and '.join(stopped)}." if stopped else "There was nothing of ours to stop.")
    return EXIT_FAILED if crashed else 0


def _ignore_interrupts() -> None:
    """We are stopping: a second Ctrl-C must not leave servers behind."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _show(running: stack.RunningStack, *, as_json: bool, detach: bool) -> None:
    if as_json:
        typer.echo(json.dumps(_as_json(running)))
    else:
        _show_table(running, detach=detach)


def _as_json(running: stack.RunningStack) -> dict[str, object]:
    return {
        "kafka_bootstrap": running.kafka.shown_address,
        "redis_url": running.redis.shown_address,
        "state_dir": str(running.state_dir),
        "services": {
            service.name.value: {
                "address": service.shown_address,
                "source": service.source.value,
                "description": service.description,
                "started_here": service.started_here,
            }
            for service in running.services
        },
    }


def _show_table(running: stack.RunningStack, *, detach: bool) -> None:
    console = Console(highlight=False)
    table = Table(box=None, show_header=False, pad_edge=False)
    for service in running.services:
        told = "started" if service.started_here else "was running"
        table.add_row(
            f"[bold]{service.name.label}[/]",
            f"[green]{escape(service.shown_address)}[/]",
            told if service.source is not Source.EXTERNAL else "reached",
            f"[dim]{escape(service.description)}[/]",
        )
    console.print(table)
    if exports := _exports(running):
        # Plain and in one piece: it is there to be copied.
        console.print(f"\nexport {' '.join(exports)}\n", soft_wrap=True, markup=False)
    ours = [service for service in running.services if service.source is not Source.EXTERNAL]
    if ours:
        console.print(f"Data and logs are in {running.state_dir}.", markup=False, style="dim", soft_wrap=True)
    if detach:
        console.print("`sluice down` stops it.", style="dim")
    elif any(service.started_here for service in running.services):
        console.print("Ctrl-C stops what was started here.", style="dim")
    else:
        console.print("Nothing was started here; Ctrl-C leaves it all running.", style="dim")


def _exports(running: stack.RunningStack) -> list[str]:
    """What a shell needs in order to find the stack; what the user has set is set already."""
    variables = {"KAFKA_BOOTSTRAP": running.kafka, "REDIS_URL": running.redis}
    return [f"{name}={s.address}" for name, s in variables.items() if s.source is not Source.EXTERNAL]


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM, and the closing of the terminal, take the same way out as Ctrl-C."""
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
