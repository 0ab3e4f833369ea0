"""The command line: a list of commands, each in its own file under `sluice/commands/`."""

import sys
from typing import Annotated

import typer

from sluice import __version__
from sluice.commands import config, demo, doctor, down, run, send, topics, up, watch

app = typer.Typer(
    name="sluice",
    help="Durable, governed LLM calls over Kafka, live in the browser.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("demo")(demo.demo)
app.command("up")(up.up)
app.command("down")(down.down)
app.command("run")(run.run)
app.add_typer(topics.app, name="topics")
app.command("send")(send.send)
app.command("watch")(watch.watch)
app.command("config")(config.config)
app.command("doctor")(doctor.doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sluice {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Durable, governed LLM calls over Kafka, live in the browser."""


def main() -> None:
    """Entry point of the `sluice` script."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
