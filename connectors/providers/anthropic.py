"""Anthropic, by its own SDK; with a `base_url`, any server that speaks its Messages API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from connectors.providers.api_key import api_key
from connectors.providers.errors import ProviderConfigurationError

if TYPE_CHECKING:
    from connectors.providers.base import Provider
    from connectors.providers.registry import Surroundings
    from policy.catalogue import ProviderEntry

DEFAULT_BASE_URL = "https://api.anthropic.com"
DEFAULT_KEY_VARIABLE = "ANTHROPIC_API_KEY"
NO_KEY = SecretStr("no-key-needed")
"""For servers that ask for none: without any key the SDK looks for one in the environment and in files."""

StructuredOutput = Literal["output_config", "tool"]


class AnthropicOptions(BaseModel):
    """Options of `[providers.<name>.options]`.

    `default_max_tokens`: the limit of output tokens for requests that set none; Anthropic's API insists on one.
    `structured_output`: how an answer by a JSON schema is asked for. `output_config` is the native way; `tool` forces
    a call of a tool with that schema, for models and gateways that do not know the former.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    default_max_tokens: int = Field(default=4096, ge=1)
    structured_output: StructuredOutput = "output_config"


def build(name: str, entry: ProviderEntry, around: Surroundings) -> Provider:
    """A provider of type `anthropic`."""
    from connectors.providers.anthropic_messages import Messages  # noqa: PLC0415 - only where this lane runs

    options = AnthropicOptions.model_validate(entry.options)
    base_url = entry.base_url or DEFAULT_BASE_URL
    if base_url.rstrip("/").endswith("/v1"):
        raise ProviderConfigurationError(name, f"base_url {base_url}: without /v1, which the SDK adds")
    variable = key_variable(entry)
    key = api_key(name, variable, around.environ) if variable else NO_KEY
    return Messages(name, entry, base_url=base_url, options=options, key=key, http_client=around.http_client)


def key_variable(entry: ProviderEntry) -> str | None:
    """Where the key is. ANTHROPIC_API_KEY is only ever sent elsewhere if the entry names it."""
    return entry.api_key_env or (DEFAULT_KEY_VARIABLE if _is_anthropic(entry) else None)


def _is_anthropic(entry: ProviderEntry) -> bool:
    host = urlsplit(entry.base_url or DEFAULT_BASE_URL).hostname or ""
    return host == "anthropic.com" or host.endswith(".anthropic.com")
