"""The catalogue of providers: which exist, and which models go to which. Read from `providers.toml`.

Parsing is pure: text in, catalogue out, or a `CatalogueError` that names the line.
"""

import difflib
import re
import tomllib
from collections.abc import Collection
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from policy.rules import BreakerRules, LimitRules, ModelPattern, ProviderLimits, Table, TenantName, TenantRules, fits
from schemas.base import ProviderName


class CatalogueError(Exception):
    """`providers.toml` cannot be used. The message has the form `file:line: where: what`."""

    def __init__(self, what: str, *, source: str, line: int | None, where: str | None) -> None:
        place = source if line is None else f"{source}:{line}"
        super().__init__(": ".join(part for part in (place, where, what) if part))
        self.what = what
        self.source = source
        self.line = line
        self.where = where


class Timeouts(Table):
    """Limits of one call, in seconds. The request's deadline shortens `total`, never lengthens it."""

    connect_seconds: float = Field(default=5, gt=0)
    first_token_seconds: float = Field(default=60, gt=0)
    stall_seconds: float = Field(default=30, gt=0, description="between two pieces of a stream")
    total_seconds: float = Field(default=300, gt=0)


class ProviderEntry(Table):
    """One provider. `options` is read by the provider's own file."""

    type: str
    models: list[ModelPattern] = Field(min_length=1)
    default_model: str | None = None
    base_url: str | None = Field(default=None, pattern=r"^https?://[^/]")
    api_key_env: str | None = Field(default=None, pattern=r"^[A-Z][A-Z0-9_]*$")
    local: bool = False
    concurrency: int | None = Field(default=None, ge=1, le=2000)
    timeouts: Timeouts = Timeouts()
    limits: ProviderLimits = ProviderLimits()
    breaker: BreakerRules = BreakerRules()
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def model(self) -> str:
        """The model for requests that name none."""
        return self.default_model or self.models[0]

    def serves(self, model: str) -> bool:
        """Whether this model goes here: by its full name, or by a pattern that ends in `*`."""
        return any(fits(pattern, model) for pattern in self.models)

    # A rule that concerns several settings names the one to change first, as `setting: what`: errors point there.

    @model_validator(mode="after")
    def _has_a_default_model(self) -> Self:
        if self.model.endswith("*"):
            raise ValueError("models: the first one is the default and may not be a pattern; or set default_model")
        if not self.serves(self.model):
            raise ValueError("default_model: must be one of models, or fit one of its patterns")
        return self

    @model_validator(mode="after")
    def _keeps_secrets_out(self) -> Self:
        if self.base_url is not None and "@" in self.base_url.split("/")[2]:
            raise ValueError("base_url: may not hold a user name or password; name a variable in api_key_env")
        return self

    @model_validator(mode="after")
    def _limits_models_that_it_serves(self) -> Self:
        for name in self.limits.models:
            if not name.endswith("*") and not self.serves(name):
                raise ValueError(f"limits.models: {name} is not served here; take it out, or add it to models")
        return self


class Defaults(Table):
    """Where a request goes that names neither a provider nor a model."""

    provider: ProviderName | None = None


class Catalogue(Table):
    """All providers of a deployment, in the file's order: the first that serves a model gets it."""

    defaults: Defaults = Defaults()
    providers: dict[ProviderName, ProviderEntry] = Field(min_length=1)
    tenants: dict[TenantName, TenantRules] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _default_exists(self) -> Self:
        name = self.defaults.provider
        if name is not None and name not in self.providers:
            raise ValueError(f"defaults.provider: there is no provider named {name}")
        return self

    @property
    def default_provider(self) -> str:
        return self.defaults.provider or next(iter(self.providers))

    def tenant(self, tenant_id: str) -> TenantRules:
        """The tenant's own table, else that of `*`, else one without a budget."""
        return self.tenants.get(tenant_id) or self.tenants.get("*") or TenantRules()


SIMULATED_ONLY = Catalogue(
    providers={"simulated": ProviderEntry(type="simulated", models=["reading-ease-1"], local=True)}
)
"""What a deployment has that names no file: enough for a first look, and for nothing that costs money."""


def parse_catalogue(text: str, *, source: str = "providers.toml") -> Catalogue:
    """Reads the text of a `providers.toml`. Raises `CatalogueError`."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        line = int(found.group(1)) if found else max(1, len(text.splitlines()))
        raise CatalogueError(str(error), source=source, line=line, where=None) from error
    try:
        return Catalogue.model_validate(tables)
    except ValidationError as error:
        raise catalogue_error(error, text=text, source=source) from error


_OUR_SETTINGS = frozenset(
    name
    for table in (Catalogue, Defaults, ProviderEntry, Timeouts, BreakerRules, ProviderLimits, LimitRules, TenantRules)
    for name in table.model_fields
)


def catalogue_error(
    error: ValidationError,
    *,
    text: str,
    source: str,
    under: tuple[str, ...] = (),
    known: Collection[str] = _OUR_SETTINGS,
) -> CatalogueError:
    """What pydantic found wrong, with its place in the text.

    `under` is the table that was validated; `known` are names that a misspelt one may have been meant for.
    """
    # What stands in the file comes before what is missing from it: a misspelt name causes both.
    details = sorted(error.errors(include_url=False), key=lambda detail: detail["type"] == "missing")
    path, what = _fault(details[0]["loc"], details[0]["type"], details[0]["msg"], known)
    path = [*under, *path]
    return CatalogueError(what, source=source, line=line_of(text, path) or 1, where=".".join(path) or None)


def _fault(location: tuple[int | str, ...], kind: str, message: str, known: Collection[str]) -> tuple[list[str], str]:
    path = [str(step) for step in location if step != "[key]"]
    if kind == "missing":
        return path, "is missing"
    if kind == "extra_forbidden":
        similar = difflib.get_close_matches(path[-1], known, n=1)
        return path, "there is no such setting" + (f"; did you mean {similar[0]}?" if similar else "")
    message = message.removeprefix("Value error, ")
    setting, named, what = message.partition(": ")
    if kind == "value_error" and named:
        return [*path, *setting.split(".")], what
    return path, message


def line_of(text: str, path: list[str]) -> int | None:
    """The line of a dotted path in a TOML text: its key, else the nearest table around it. Counted from 1."""
    best: tuple[int, int] | None = None
    table: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]", line)
        key = re.match(r"\s*([A-Za-z0-9_\"'. -]+?)\s*=", line)
        if header:
            table = _keys(header.group(1))
            here = table
        elif key:
            here = table + _keys(key.group(1))
        else:
            continue
        shared = min(len(here), len(path))
        if shared and here[:shared] == path[:shared] and (best is None or shared > best[0]):
            best = (shared, number)
    return best[1] if best else None


def _keys(dotted: str) -> list[str]:
    """The steps of a dotted TOML key. A quoted step may hold dots."""
    return [part.strip("\"'") for part in re.findall(r"\"[^\"]*\"|'[^']*'|[A-Za-z0-9_-]+", dotted)]
