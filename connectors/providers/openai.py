"""OpenAI, by its own SDK; with a `base_url`, any server that is asked in just the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr

from connectors.providers.api_key import api_key
from connectors.providers.openai_options import ChatOptions

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

    from connectors.providers.base import Provider
    from connectors.providers.registry import Surroundings
    from policy.catalogue import ProviderEntry

DEFAULT_BASE_URL = "https://api.openai.com/v1"
DEFAULT_KEY_VARIABLE = "OPENAI_API_KEY"
NO_KEY = SecretStr("no-key-needed")
"""For servers that ask for none: the SDK insists on some key."""


class OpenAIOptions(ChatOptions):
    """Without `token_limit_parameter` the name goes by the address: OpenAI's reasoning models refuse `max_tokens`, and
    some other servers know nothing else.
    """

    organization: str | None = None
    project: str | None = None


def build(name: str, entry: ProviderEntry, around: Surroundings) -> Provider:
    """A provider of type `openai`."""
    from openai import AsyncOpenAI  # noqa: PLC0415 - only where this lane runs

    from connectors.providers.openai_chat import ChatCompletions, Dialect  # noqa: PLC0415 - likewise

    options = OpenAIOptions.model_validate(entry.options)
    variable = key_variable(entry)
    key = api_key(name, variable, around.environ) if variable else NO_KEY
    account = {"OpenAI-Organization": options.organization, "OpenAI-Project": options.project}

    def connect(http_client: httpx2.AsyncClient) -> AsyncOpenAI:
        return AsyncOpenAI(
            api_key=key.get_secret_value(), base_url=entry.base_url or DEFAULT_BASE_URL, http_client=http_client
        )

    return ChatCompletions(
        name,
        entry,
        connect,
        dialect=Dialect(
            options=options,
            output_limit="max_completion_tokens" if _is_openai(entry) else "max_tokens",
            headers={header: value for header, value in account.items() if value is not None},
        ),
        secret=key.get_secret_value,
        http_client=around.http_client,
    )


def key_variable(entry: ProviderEntry) -> str | None:
    """Where the key is. OPENAI_API_KEY is only ever sent elsewhere if the entry names it."""
    return entry.api_key_env or (DEFAULT_KEY_VARIABLE if _is_openai(entry) else None)


def _is_openai(entry: ProviderEntry) -> bool:
    host = urlsplit(entry.base_url or DEFAULT_BASE_URL).hostname or ""
    return host == "openai.com" or host.endswith(".openai.com")
