"""`sluice run ROLE`: one role of the system, in the foreground, as a supervisor or container starts it."""

import asyncio
import os
import signal
import threading
from enum import StrEnum
from typing import Annotated

import structlog
import typer
from aiokafka.errors import KafkaError

from connectors.kafka.access import KafkaAccessError, check_access
from connectors.logs import configure_logs
from connectors.providers.errors import ProviderConfigurationError
from connectors.schema_registry import RegistryConfigurationError
from connectors.settings import Settings
from connectors.tls import TlsFileError
from connectors.tracing import configure_tracing
from policy.catalogue import Catalogue
from schemas.codec import SchemaUnavailableError
from sluice.commands.endings import misused, plain
from sluice.commands.loading import catalogue_or_exit, settings_or_exit

log = structlog.get_logger(__name__)

EXIT_CANNOT_START = 1


class Role(StrEnum):
    """What a process can be."""

    INTAKE = "intake"
    LANE = "lane"
    CONTROL = "control"
    BRIDGE = "bridge"


def run(
    role: Annotated[Role, typer.Argument(help="intake, lane, control or bridge.")],
    provider: Annotated[
        str | None, typer.Argument(help="The lane's provider, as providers.toml names it.", show_default=False)
    ] = None,
    *,
    until_stdin_closes: Annotated[
        bool, typer.Option("--until-stdin-closes", help="Stop when standard input ends, as on SIGTERM.", hidden=True)
    ] = False,
) -> None:
    """Run one role until SIGTERM or Ctrl-C, then drain it and end.

    Every role serves /metrics, /healthz and /readyz on SLUICE_OPS__PORT (any free port where it is 0; the log says
    which). Run as many of each as you like: they share the work through Kafka.

    \b
    Examples:
      sluice run intake
      sluice run lane simulated
      sluice run control
      SLUICE_OPS__PORT=9101 sluice run lane openai
      SLUICE_BRIDGE__PORT=8080 sluice run bridge

    \b
    Exit codes:
      0  stopped as asked
      1  crashed, or could not start: no Kafka, topics or registry (a bridge waits)
      2  called wrongly, or the settings are not valid
    """
    settings = settings_or_exit()
    catalogue = catalogue_or_exit(settings)
    if (role is Role.LANE) != (provider is not None):
        misused("a lane needs its provider, and other roles take none: sluice run lane simulated")
    if provider is not None and provider not in catalogue.providers:
        misused(f"there is no provider named {provider}; there are: {', '.join(catalogue.providers)}")
    name = role if provider is None else f"{role}-{provider}"
    configure_logs(settings.log, role=name)
    configure_tracing(name)
    if until_stdin_closes:
        threading.Thread(target=_stop_when_stdin_closes, name="stdin", daemon=True).start()
    try:
        code = asyncio.run(_run(role, provider, settings, catalogue))
    except (ProviderConfigurationError, RegistryConfigurationError, TlsFileError) as error:
        misused(str(error))
    except (KafkaAccessError, SchemaUnavailableError) as error:
        code = _cannot_start(str(error))
    except KafkaError as error:
        code = _cannot_start(f"Kafka at {settings.kafka_bootstrap}: {plain(error)}")
    raise typer.Exit(code)


def _cannot_start(reason: str) -> int:
    """In the role's log, where its supervisor looks; which then starts it again."""
    log.error("cannot_start", reason=reason)
    return EXIT_CANNOT_START


def _stop_when_stdin_closes() -> None:
    """Whoever started us with a pipe has died: nobody else would stop us."""
    # Read without Python's buffer, whose lock would still be held by this thread when the process ends.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


async def _run(role: Role, provider: str | None, settings: Settings, catalogue: Catalogue) -> int:
    # Imported here: Faust reads sys.argv when imported, and a bridge has no use for it.
    if role is Role.BRIDGE:
        from websocket_bridge.role import run_bridge_role  # noqa: PLC0415

        return await run_bridge_role(settings)
    # A worker that came up before its Kafka says why it ends; aiokafka would raise "Unable to bootstrap".
    await check_access(settings)
    if role is Role.CONTROL:
        from streams.control import run_control  # noqa: PLC0415

        return await run_control(settings, catalogue)
    from streams.worker import run_intake, run_lane  # noqa: PLC0415

    if provider is None:
        return await run_intake(settings, catalogue)
    return await run_lane(settings, catalogue, provider)
