"""The command line: a list of commands, each in its own file under `sluice/commands/`."""

import sys
from functools import cache
from typing import Annotated

import typer

from sluice import __version__

EXIT_INTERRUPTED = 130


def __getattr__(name: str) -> typer.Typer:
    """`app`, the application itself, for whoever looks at its commands."""
    if name == "app":
        return application()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def application() -> typer.Typer:
    """All commands, in the order in which a newcomer needs them."""
    # Imported here, for it takes a second, and a Ctrl-C in it is to end in silence as any other.
    from sluice.commands import (  # noqa: PLC0415
        cancel,
        config,
        demo,
        dlq,
        doctor,
        down,
        providers,
        run,
        send,
        topics,
        up,
        watch,
    )

    app = typer.Typer(
        name="sluice",
        help="Durable, governed LLM calls over Kafka, live in the browser.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    app.command("demo")(demo.demo)
    app.command("up")(up.up)
    app.command("down")(down.down)
    app.command("run")(run.run)
    app.add_typer(topics.app, name="topics")
    app.add_typer(providers.app, name="providers")
    app.command("send")(send.send)
    app.command("watch")(watch.watch)
    app.command("cancel")(cancel.cancel)
    app.add_typer(dlq.app, name="dlq")
    app.command("config")(config.config)
    app.command("doctor")(doctor.doctor)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sluice {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Durable, governed LLM calls over Kafka, live in the browser."""


def main() -> None:
    """Entry point of the `sluice` script."""
    try:
        application()()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
