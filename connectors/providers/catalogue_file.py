"""Reads `providers.toml`, and checks what only the registered provider types can judge: their name and options."""

from pathlib import Path

from pydantic import ValidationError

from connectors.providers.registry import PROVIDER_TYPES, unknown_type
from policy.catalogue import (
    SIMULATED_ONLY,
    Catalogue,
    CatalogueError,
    ProviderEntry,
    catalogue_error,
    line_of,
    parse_catalogue,
)


def load_catalogue(path: Path | None) -> Catalogue:
    """The catalogue in a file; without one, the simulated provider alone. Raises `CatalogueError`.

    Keys are not looked for here: only the process that serves a provider's lane needs its key.
    """
    if path is None:
        return SIMULATED_ONLY
    source = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogueError(f"cannot be read: {error}", source=source, line=None, where=None) from error
    catalogue = parse_catalogue(text, source=source)
    for name, entry in catalogue.providers.items():
        _check(name, entry, text=text, source=source)
    return catalogue


def _check(name: str, entry: ProviderEntry, *, text: str, source: str) -> None:
    kind = PROVIDER_TYPES.get(entry.type)
    if kind is None:
        path = ["providers", name, "type"]
        raise CatalogueError(unknown_type(entry.type), source=source, line=line_of(text, path), where=".".join(path))
    try:
        kind.options.model_validate(entry.options)
    except ValidationError as error:
        raise catalogue_error(
            error, text=text, source=source, under=("providers", name, "options"), known=kind.options.model_fields
        ) from error
