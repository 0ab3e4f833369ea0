"""Reads docker-compose.yml as Compose does, as far as our file goes: anchors, merges, `${NAME:-default}`."""

import re
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import AliasChoices, BaseModel

from connectors.settings import CONFIG_ENVIRONMENT, Settings

ROOT = Path(__file__).parents[2]
ROLE_IMAGE = "sluice:local"

Service = dict[str, Any]


def compose_file(text: str | None = None) -> dict[str, Any]:
    """The file as it is with nothing in the environment."""
    text = text if text is not None else (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    resolved = re.sub(r"\$\{(\w+):-([^}]*)\}", r"\2", text)
    if "$" in resolved:
        raise ValueError("only ${NAME:-default} is read: a name without a default is an empty text in Compose")
    loaded: dict[str, Any] = yaml.safe_load(resolved)
    return loaded


def services() -> dict[str, Service]:
    """All services, by name."""
    found: dict[str, Service] = compose_file()["services"]
    return found


def roles() -> dict[str, Service]:
    """The services that run our image, by name."""
    return {name: service for name, service in services().items() if service["image"] == ROLE_IMAGE}


def is_one_shot(service: Service) -> bool:
    """Whether it does its work and ends."""
    return bool(service["restart"] == "no")


def environment(service: Service) -> dict[str, str]:
    """What the container's environment holds. A name without a value is passed on, and here there is none."""
    return {name: str(value) for name, value in service["environment"].items() if value is not None}


def setting_names(model: type[BaseModel] = Settings, prefix: str = "SLUICE_") -> set[str]:
    """Every environment variable that is a setting."""
    names = {CONFIG_ENVIRONMENT} if model is Settings else set()
    for name, field in model.model_fields.items():
        variable = f"{prefix}{name.upper()}"
        section = next((kind for kind in (field.annotation, *get_args(field.annotation)) if _is_section(kind)), None)
        if section is not None:
            names |= setting_names(section, f"{variable}__")
        elif isinstance(field.validation_alias, AliasChoices):
            names |= {str(alias).upper() for alias in field.validation_alias.choices if str(alias).isupper()}
        else:
            names.add(variable)
    return names


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def seconds(duration: str) -> float:
    """A duration as Compose writes them: `60s`, `1m30s`."""
    units = {"h": 3600, "m": 60, "s": 1}
    parts = re.findall(r"(\d+)([hms])", duration)
    if "".join(number + unit for number, unit in parts) != duration:
        raise ValueError(f"{duration!r} is not a duration such as 1m30s")
    return float(sum(int(number) * units[unit] for number, unit in parts))
