"""`sluice config`: the settings in force, where they came from, secrets masked."""

import json
import os
from typing import Annotated, Any
from urllib.parse import urlsplit, urlunsplit

import typer

from connectors.settings import Settings, config_file
from sluice.commands.loading import catalogue_or_exit, settings_or_exit


def config(*, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Check the settings and providers, and print what is in force. Secrets are masked.

    \b
    Examples:
      sluice config
      SLUICE_KAFKA__SASL_MECHANISM=PLAIN sluice config     says what is missing
      sluice config --json | jq .worker

    \b
    Exit codes:
      0  valid
      2  not valid; each line names a setting and what is wrong with it
    """
    settings = settings_or_exit()
    catalogue = catalogue_or_exit(settings)
    values = masked(settings)
    values["providers"] = {
        name: {
            "type": entry.type,
            "models": entry.models,
            "base_url": entry.base_url,
            "api_key": _key_state(entry.api_key_env),
        }
        for name, entry in catalogue.providers.items()
    }
    if as_json:
        typer.echo(json.dumps(values, indent=2))
        return
    path = config_file()
    typer.echo(f"# file: {path if path.is_file() else 'none (sluice.toml, or SLUICE_CONFIG)'}")
    for line in _lines(values):
        typer.echo(line)


def masked(settings: Settings) -> dict[str, Any]:
    """All settings as JSON values, with secrets as asterisks and without passwords in URLs."""
    values: dict[str, Any] = settings.model_dump(mode="json")
    values["redis_url"] = _without_password(settings.redis_url.get_secret_value())
    if settings.schema_registry_url is not None:
        values["schema_registry_url"] = _without_password(settings.schema_registry_url)
    return values


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:**********@{host}"))


def _key_state(variable: str | None) -> str:
    if variable is None:
        return "none needed"
    return f"{variable} is set" if os.environ.get(variable) else f"{variable} is not set"


def _lines(values: dict[str, Any], prefix: str = "") -> list[str]:
    lines = []
    for name, value in values.items():
        if isinstance(value, dict) and value:
            lines.extend(_lines(value, f"{prefix}{name}."))
        else:
            lines.append(f"{prefix}{name} = {json.dumps(value)}")
    return lines
