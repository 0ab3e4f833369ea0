"""Settings, catalogue and logs of a command: read, checked, and every error a line that says what to do."""

import difflib
import logging
import os
import re
import tomllib
from typing import Any

from pydantic import AliasChoices, BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError

from connectors.logs import configure_logs
from connectors.providers.catalogue_file import load_catalogue
from connectors.settings import Settings, config_file
from policy.catalogue import Catalogue, CatalogueError
from sluice import stack
from sluice.commands.endings import EXIT_MISUSED, fail, misused

PREFIX = "SLUICE_"
_LIBRARIES = ("aiokafka", "asyncio")


def settings_or_exit(**given: Any) -> Settings:
    """The settings in force; `given` ones are the strongest. Ends the command with exit code 2 where they are wrong.

    Where no address of Kafka or Redis is set, it is that of the stack that `sluice up` left running, if one does.
    """
    try:
        settings = Settings(**given)
    except ValidationError as error:
        fail("\n".join(_line(detail) for detail in error.errors(include_url=False, include_input=False)), EXIT_MISUSED)
    except SettingsError as error:
        misused(_unparsable(error))
    except tomllib.TOMLDecodeError as error:
        misused(f"{config_file()}: {error}")
    except (OSError, ValueError) as error:
        misused(str(error))
    return _on_local_stack(settings)


def catalogue_or_exit(settings: Settings) -> Catalogue:
    """The providers of `providers_file`. Ends the command with exit code 2 where the file is wrong."""
    try:
        return load_catalogue(settings.providers_file)
    except CatalogueError as error:
        misused(str(error))


def configure_command_logs(settings: Settings, *, command: str) -> None:
    """Logs of a command that people type: errors only, and libraries say nothing. SLUICE_LOG__LEVEL=debug shows all."""
    if settings.log.level == "debug":
        configure_logs(settings.log, role=command)
        return
    configure_logs(settings.log.model_copy(update={"level": "error"}), role=command)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _on_local_stack(settings: Settings) -> Settings:
    try:
        found = stack.find_running()
    except (stack.StackError, OSError) as error:
        misused(str(error))
    update: dict[str, object] = {}
    if found.kafka_bootstrap and "kafka_bootstrap" not in settings.model_fields_set:
        update["kafka_bootstrap"] = found.kafka_bootstrap
    if found.redis_url and "redis_url" not in settings.model_fields_set:
        update["redis_url"] = SecretStr(found.redis_url)
    return settings.model_copy(update=update)


def _line(detail: ErrorDetails) -> str:
    steps = [str(step) for step in detail["loc"]]
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        message = "there is no such setting" + _suggestion(steps)
    return f"{_named(steps)}: {message}"


def _named(steps: list[str]) -> str:
    """A setting as the file has it, and as the environment has it."""
    if not steps:
        return "settings"
    # A field with a name of its own in the environment is reported by that name.
    first = next((name for name, field in Settings.model_fields.items() if steps[0] in _aliases(field)), steps[0])
    dotted = ".".join([first, *steps[1:]])
    own = next((alias for alias in _aliases(Settings.model_fields.get(first)) if alias.isupper()), None)
    return f"{dotted} ({own or PREFIX + '__'.join(steps).upper()})"


def _aliases(field: FieldInfo | None) -> list[str]:
    alias = field.validation_alias if field else None
    return [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else []


def _suggestion(steps: list[str]) -> str:
    model: type[BaseModel] = Settings
    for step in steps[:-1]:
        field = model.model_fields.get(step)
        section = field.annotation if field else None
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            return ""
        model = section
    return similar(steps[-1], list(model.model_fields))


def similar(name: str, known: list[str]) -> str:
    """`; did you mean ...?` where one of the known names is close, else nothing."""
    found = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _unparsable(error: SettingsError) -> str:
    """pydantic-settings names the field alone, and the variable may be one of several below it."""
    found = re.search(r'field "(\w+)"', str(error))
    start = f"{PREFIX}{found.group(1).upper()}" if found else PREFIX
    names = [name for name in sorted(os.environ) if name.upper().startswith(start)]
    return f'{" or ".join(names) or start}: not JSON, as lists and tables are written: ["a", "b"]'
