"""Any other server of chat completions, by configuration alone: llama.cpp's server, Ollama, a company's gateway ..."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from connectors.providers.api_key import api_key
from connectors.providers.errors import ProviderConfigurationError
from connectors.providers.openai import NO_KEY
from connectors.providers.openai_options import ChatOptions

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI, Omit

    from connectors.providers.base import Provider
    from connectors.providers.registry import Surroundings
    from policy.catalogue import ProviderEntry

_HOLD_SECRETS = frozenset({"authorization", "proxy-authorization", "api-key", "x-api-key", "cookie"})


class OpenAICompatibleOptions(ChatOptions):
    """`key_header`: the header that takes the key as it is, in place of `Authorization: Bearer`.

    `headers`: sent with every call. A key is none of them: it comes from the variable that `api_key_env` names.
    """

    key_header: str | None = Field(default=None, pattern=r"^[A-Za-z0-9-]+$")
    headers: dict[str, str] = Field(default_factory=dict)

    @field_validator("headers")
    @classmethod
    def _keeps_secrets_out(cls, headers: dict[str, str]) -> dict[str, str]:
        for header in headers:
            if header.lower() in _HOLD_SECRETS:
                raise ValueError(f"may not hold {header}: name a variable in api_key_env, and the header in key_header")
        return headers


def build(name: str, entry: ProviderEntry, around: Surroundings) -> Provider:
    """A provider of type `openai_compatible`."""
    from openai import AsyncOpenAI, Omit  # noqa: PLC0415 - only where this lane runs

    from connectors.providers.openai_chat import ChatCompletions, Dialect  # noqa: PLC0415 - likewise

    options = OpenAICompatibleOptions.model_validate(entry.options)
    if entry.base_url is None:
        raise ProviderConfigurationError(name, "base_url is missing; the address up to /v1, for most servers")
    base_url = entry.base_url
    key = api_key(name, entry.api_key_env, around.environ) if entry.api_key_env else NO_KEY
    headers: dict[str, str | Omit] = dict(options.headers)
    if options.key_header is not None:
        headers |= {"Authorization": Omit(), options.key_header: key.get_secret_value()}

    def connect(http_client: httpx2.AsyncClient) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=base_url, api_key=key.get_secret_value(), http_client=http_client)

    return ChatCompletions(
        name,
        entry,
        connect,
        dialect=Dialect(options=options, headers=headers),
        secret=key.get_secret_value,
        http_client=around.http_client,
    )
