"""Settings and catalogue for a command: read, checked, and every error a line that says what to do."""

from typing import NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console

from connectors.providers.catalogue_file import load_catalogue
from connectors.settings import Settings
from policy.catalogue import Catalogue, CatalogueError

EXIT_MISUSED = 2


def settings_or_exit() -> Settings:
    """The settings in force. Ends the command with exit code 2 where they are wrong."""
    try:
        return Settings()
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            name = "__".join(str(part) for part in detail["loc"]).upper()
            message = str(detail["msg"]).removeprefix("Value error, ")
            Console(stderr=True).print(f"setting SLUICE_{name}: {message}", markup=False, style="red")
        raise typer.Exit(EXIT_MISUSED) from None
    except (FileNotFoundError, ValueError) as error:
        misused(str(error))


def catalogue_or_exit(settings: Settings) -> Catalogue:
    """The providers of `providers_file`. Ends the command with exit code 2 where the file is wrong."""
    try:
        return load_catalogue(settings.providers_file)
    except CatalogueError as error:
        misused(str(error))


def misused(message: str) -> NoReturn:
    """Ends the command: it was called in a way that cannot work."""
    Console(stderr=True).print(message, markup=False, style="red", soft_wrap=True)
    raise typer.Exit(EXIT_MISUSED)
