"""How a command ends early: one line on standard error that says what to do, and an exit code."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from aiokafka.errors import KafkaError
from rich.console import Console

from connectors.kafka.access import KafkaAccessError
from connectors.schema_registry import RegistryConfigurationError
from connectors.settings import Settings
from connectors.tls import TlsFileError
from schemas.codec import SchemaUnavailableError

EXIT_MISUSED = 2
EXIT_KAFKA = 4


def note(message: str, *, style: str | None = None) -> None:
    """A line for people, on standard error: standard output holds the result alone."""
    Console(stderr=True, highlight=False).print(message, style=style, markup=False, soft_wrap=True)


def fail(message: str, code: int) -> NoReturn:
    """Ends the command."""
    note(message, style="red")
    raise typer.Exit(code)


def misused(message: str) -> NoReturn:
    """Ends the command: it was called in a way that cannot work."""
    fail(message, EXIT_MISUSED)


@contextmanager
def kafka_problems(settings: Settings, *, code: int = EXIT_KAFKA) -> Iterator[None]:
    """Ends the command where Kafka or the schema registry cannot be used. `code` is for what may pass."""
    try:
        yield
    except (TlsFileError, RegistryConfigurationError) as error:
        message, code = str(error), EXIT_MISUSED
    except (KafkaAccessError, SchemaUnavailableError) as error:
        message = str(error)
    except KafkaError as error:
        message = f"Kafka at {settings.kafka_bootstrap}: {plain(error)}"
    else:
        return
    fail(message, code)


def plain(error: KafkaError) -> str:
    """What happened, without the class and number that aiokafka puts before it."""
    return str(error.args[0]) if error.args else type(error).__name__
