"""`sluice cancel`: calls requests off by id, tenant or correlation."""

import asyncio
import getpass
from typing import Annotated

import typer
from pydantic import ValidationError

from connectors.kafka.access import check_access
from connectors.settings import Settings
from schemas.command import Command
from sluice.client import Client
from sluice.commands.endings import fail, kafka_problems, misused, note
from sluice.commands.interrupts import Interrupts
from sluice.commands.loading import configure_command_logs, settings_or_exit

EXIT_TIMEOUT = 3
EXIT_INTERRUPTED = 130


def cancel(
    request_ids: Annotated[list[str] | None, typer.Argument(help="These requests.", show_default=False)] = None,
    *,
    tenant: Annotated[str | None, typer.Option(help="All of this tenant.", show_default=False)] = None,
    correlation: Annotated[str | None, typer.Option(help="All with this correlation id.", show_default=False)] = None,
    reason: Annotated[str | None, typer.Option(help="Goes into their results.", show_default=False)] = None,
    timeout: Annotated[float, typer.Option(help="Seconds until Kafka has it.", min=0.1)] = 30.0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a whole tenant is called off.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the commands as JSON lines.")] = False,
) -> None:
    """Call requests off that were sent until now, wherever they are.

    Where several are given all must fit. Whatever ends by it gets a result, `cancelled`. What has ended before stays as
    it is, and what is sent later is not touched. The role `control` carries it out: `sluice watch` shows it.

    \b
    Examples:
      sluice cancel a-1 a-2
      sluice cancel --correlation batch-3 --reason "wrong prompt"
      sluice cancel --tenant press --yes
      sluice cancel a-1 --tenant press --json | jq -r .command_id

    \b
    Exit codes:
      0    Kafka has the command
      1    not confirmed at the prompt; nothing was sent
      2    called wrongly, or the settings are not valid
      3    Kafka did not take it in time
      4    Kafka could not be used, or the topics do not exist
      130  interrupted
    """
    settings = settings_or_exit()
    configure_command_logs(settings, command="cancel")
    selections = _selections(request_ids or [], tenant, correlation)
    if not request_ids and correlation is None and not yes:
        typer.confirm(f"Call off everything of the tenant {tenant}?", abort=True, err=True)
    with Interrupts() as interrupts, kafka_problems(settings):
        try:
            sent = interrupts.run(_send(settings, selections, reason, timeout))
        except KeyboardInterrupt:
            fail(
                "Interrupted. Whether Kafka has the command is not known; to send it again does no harm.",
                EXIT_INTERRUPTED,
            )
        except TimeoutError:
            fail(f"Kafka at {settings.kafka_bootstrap} did not take it within {timeout:g} s.", EXIT_TIMEOUT)
    for command in sent:
        if as_json:
            typer.echo(command.model_dump_json(exclude_none=True))
    if not as_json:
        note("Called off. What was not done yet ends as cancelled.")


def _selections(request_ids: list[str], tenant: str | None, correlation: str | None) -> list[dict[str, str]]:
    shared = {
        name: value for name, value in (("tenant_id", tenant), ("correlation_id", correlation)) if value is not None
    }
    if not request_ids and not shared:
        misused("say what: sluice cancel a-1, or --correlation batch-3, or --tenant press")
    return [{"request_id": request_id, **shared} for request_id in request_ids] or [shared]


async def _send(
    settings: Settings, selections: list[dict[str, str]], reason: str | None, timeout_seconds: float
) -> list[Command]:
    try:
        async with asyncio.timeout(timeout_seconds), Client(settings, source="/sluice/cancel") as client:
            return [await client.cancel(**names, reason=reason, issued_by=_user()) for names in selections]
    except ValidationError as error:
        detail = error.errors()[0]
        misused(f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}")
    except TimeoutError:
        # Why is it late? Where Kafka is away, this says so.
        await check_access(settings)
        raise


def _user() -> str | None:
    try:
        return getpass.getuser()[:200]
    except (KeyError, OSError):  # no such user in a container
        return None
