"""`sluice config`: the settings in force, secrets masked."""

import json
import os
import re
from typing import Annotated, Any

import typer

from connectors.settings import CONFIG_ENVIRONMENT, Settings, config_file
from sluice.commands.endings import note
from sluice.commands.loading import PREFIX, catalogue_or_exit, settings_or_exit, similar

MASK = "**********"
_OTHER_VARIABLES = (CONFIG_ENVIRONMENT, "SLUICE_STATE_DIR", "SLUICE_CACHE_DIR")


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
    for name in _unknown_variables():
        note(f"{name} is ignored: there is no such setting{similar(name, _known_variables())}", style="yellow")
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
    typer.echo(f"# file: {path if path.is_file() else f'none (sluice.toml, or {CONFIG_ENVIRONMENT})'}")
    typer.echo(f"# environment: {', '.join(_variables()) or f'none ({PREFIX}...)'}")
    for line in _lines(values):
        typer.echo(line)


def masked(settings: Settings) -> dict[str, Any]:
    """All settings as JSON values, with secrets as asterisks and without passwords in URLs."""
    values: dict[str, Any] = settings.model_dump(mode="json")
    values["redis_url"] = without_secrets(settings.redis_url.get_secret_value())
    values["schema_registry_url"] = without_secrets(settings.schema_registry_url)
    values["kafka"]["oauth_token_url"] = without_secrets(settings.kafka.oauth_token_url)
    return values


def without_secrets(urls: str | None) -> str | None:
    """One URL or several, separated by commas, with passwords as asterisks.

    Not by a parser of URLs: what it cannot read must not be shown either, such as a password with a slash in it.
    """
    if urls is None:
        return None
    shown = (re.sub(r"(//[^:/?#@]*):.*@", rf"\1:{MASK}@", url) for url in re.split(r",(?=\s*\w+://)", urls))
    return re.sub(r"([?&][^=&#]*(?:password|secret|token)=)[^&#,]*", rf"\1{MASK}", ",".join(shown), flags=re.IGNORECASE)


def _variables() -> list[str]:
    """The variables of the environment that are settings."""
    return sorted(name for name in os.environ if _is_known(name))


def _unknown_variables() -> list[str]:
    """A misspelt variable is ignored by whoever reads settings; here it is noticed."""
    return sorted(name for name in os.environ if name.startswith(PREFIX) and not _is_known(name))


def _is_known(name: str) -> bool:
    return name.partition("__")[0] in _known_variables()


def _known_variables() -> list[str]:
    names = [PREFIX + name.upper() for name, field in Settings.model_fields.items() if field.validation_alias is None]
    aliases = [
        str(name)
        for field in Settings.model_fields.values()
        for name in getattr(field.validation_alias, "choices", ())
        if str(name).isupper()
    ]
    return [*names, *aliases, *_OTHER_VARIABLES]


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
