"""OpenRouter, by the OpenAI SDK: many providers behind one address.

It passes a call on to whoever has the model, so what the model can is declared in the options, and a call that asks
for JSON by a schema goes only to providers that know the parameter. Its habit of cutting the middle out of prompts
that are too long for a small model is switched off: such a call fails, as it should.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from connectors.providers.api_key import api_key
from connectors.providers.openai_options import ChatOptions

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

    from connectors.providers.base import Provider
    from connectors.providers.registry import Surroundings
    from policy.catalogue import ProviderEntry

DEFAULT_BASE_URL = "https://openrouter.ai/api/v1"
DEFAULT_KEY_VARIABLE = "OPENROUTER_API_KEY"
_NEVER_CUT_PROMPTS = {"plugins": [{"id": "context-compression", "enabled": False}]}
"""Else prompts for models of up to 8,192 tokens are compressed (openrouter.ai/docs, Message Transforms)."""


class OpenRouterOptions(ChatOptions):
    """`provider`: routing among the providers behind it, as OpenRouter's `provider` object has it.

    `site_url` and `site_name` show up in OpenRouter's statistics.
    """

    provider: dict[str, Any] = Field(default_factory=dict)
    site_url: str | None = None
    site_name: str | None = None


def build(name: str, entry: ProviderEntry, around: Surroundings) -> Provider:
    """A provider of type `openrouter`."""
    from openai import AsyncOpenAI  # noqa: PLC0415 - only where this lane runs

    from connectors.providers.openai_chat import ChatCompletions, Dialect  # noqa: PLC0415 - likewise

    options = OpenRouterOptions.model_validate(entry.options)
    key = api_key(name, key_variable(entry), around.environ)
    site = {"HTTP-Referer": options.site_url, "X-Title": options.site_name}

    def connect(http_client: httpx2.AsyncClient) -> AsyncOpenAI:
        return AsyncOpenAI(
            base_url=entry.base_url or DEFAULT_BASE_URL, api_key=key.get_secret_value(), http_client=http_client
        )

    return ChatCompletions(
        name,
        entry,
        connect,
        dialect=Dialect(
            options=options,
            headers={header: value for header, value in site.items() if value is not None},
            body=_NEVER_CUT_PROMPTS | ({"provider": options.provider} if options.provider else {}),
            body_with_schema={"provider": {"require_parameters": True, **options.provider}},
            check_path="/key",  # the list of models is public, and says nothing of our key
        ),
        secret=key.get_secret_value,
        http_client=around.http_client,
    )


def key_variable(entry: ProviderEntry) -> str:
    """Where the key is."""
    return entry.api_key_env or DEFAULT_KEY_VARIABLE
