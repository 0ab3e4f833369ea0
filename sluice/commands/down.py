"""`sluice down`: stop the local stack, also after a crash."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sluice import stack

EXIT_FAILED = 1


def down(
    *,
    purge: Annotated[bool, typer.Option("--purge", help="Remove its topics, data and logs as well.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as one JSON object.")] = False,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="SLUICE_STATE_DIR",
            help="The one `sluice up` used; else .state of a checkout, else a folder of the user.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Stop the Kafka and the Redis that `sluice up` started, also after a crash.

    Only what the state file names is stopped, and only if it is still the
    very same process. Data is kept for the next start, unless you --purge it.

    \b
    Examples:
      sluice down
      sluice down --purge

    \b
    Exit codes:
      0  nothing is running any more, also when nothing was
      1  something could not be stopped
    """
    console = Console(highlight=False)
    try:
        done = stack.stop_all(state_dir, purge=purge)
    except (stack.StackError, OSError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_FAILED) from None
    if as_json:
        typer.echo(json.dumps({"stopped": done.stopped, "crashed": done.crashed, "purged": done.purged}))
        return
    if done.stopped:
        console.print(f"Stopped {' and '.join(done.stopped)}.")
    if done.crashed:
        console.print(f"{' and '.join(done.crashed)} had ended already.")
    if not done.stopped and not done.crashed:
        console.print("Nothing was running.")
    if done.purged:
        console.print("Removed data and logs.")
    elif purge:
        console.print("There was no data to remove.")
