"""Google's Gemini, by its own SDK; with a `base_url`, any server that speaks the Gemini API."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from connectors.providers.api_key import api_key
from connectors.providers.errors import ProviderConfigurationError

if TYPE_CHECKING:
    from connectors.providers.base import Provider
    from connectors.providers.registry import Surroundings
    from policy.catalogue import ProviderEntry

DEFAULT_BASE_URL = "https://generativelanguage.googleapis.com"
DEFAULT_KEY_VARIABLE = "GEMINI_API_KEY"
NO_KEY = SecretStr("no-key-needed")
"""For servers that ask for none: without any key the SDK looks for one in the environment."""


class GoogleOptions(BaseModel):
    """Options of `[providers.<name>.options]`.

    `api_version`: `v1` is the stable one, which Google changes in no breaking way, and the SDK's own default. Preview
    models and names that end in `-latest` are served by `v1beta` alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    api_version: str = Field(default="v1", pattern=r"^[A-Za-z0-9]+$")


def build(name: str, entry: ProviderEntry, around: Surroundings) -> Provider:
    """A provider of type `google`."""
    from connectors.providers.google_gemini import Gemini  # noqa: PLC0415 - only where this lane runs

    options = GoogleOptions.model_validate(entry.options)
    base_url = entry.base_url or DEFAULT_BASE_URL
    if base_url.rstrip("/").endswith(("/v1", "/v1beta", "/v1alpha")):
        raise ProviderConfigurationError(
            name, f"base_url {base_url}: without the API's version, which goes into options.api_version"
        )
    variable = key_variable(entry)
    key = api_key(name, variable, around.environ) if variable else NO_KEY
    return Gemini(name, entry, base_url=base_url, options=options, key=key, http_client=around.http_client)


def key_variable(entry: ProviderEntry) -> str | None:
    """Where the key is. GEMINI_API_KEY is only ever sent elsewhere if the entry names it."""
    return entry.api_key_env or (DEFAULT_KEY_VARIABLE if _is_google(entry) else None)


def _is_google(entry: ProviderEntry) -> bool:
    host = urlsplit(entry.base_url or DEFAULT_BASE_URL).hostname or ""
    return host == "googleapis.com" or host.endswith(".googleapis.com")
