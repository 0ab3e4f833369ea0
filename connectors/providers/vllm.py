"""vLLM's server, by the OpenAI SDK. It guides a model's output by the whole of a JSON schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from connectors.providers.api_key import api_key
from connectors.providers.errors import ProviderConfigurationError
from connectors.providers.openai import NO_KEY
from connectors.providers.openai_options import ChatOptions, StructuredOutput

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

    from connectors.providers.base import Provider
    from connectors.providers.registry import Surroundings
    from policy.catalogue import ProviderEntry


class VLLMOptions(ChatOptions):
    """A server before 0.12 may want `structured_output = { "*" = "guided_json" }`."""

    default_structured_output: ClassVar[StructuredOutput] = "full_json_schema"


def build(name: str, entry: ProviderEntry, around: Surroundings) -> Provider:
    """A provider of type `vllm`."""
    from openai import AsyncOpenAI  # noqa: PLC0415 - only where this lane runs

    from connectors.providers.openai_chat import ChatCompletions, Dialect  # noqa: PLC0415 - likewise

    options = VLLMOptions.model_validate(entry.options)
    if entry.base_url is None:
        raise ProviderConfigurationError(name, "base_url is missing; for vLLM on this machine http://127.0.0.1:8000/v1")
    base_url = entry.base_url
    key = api_key(name, entry.api_key_env, around.environ) if entry.api_key_env else NO_KEY

    def connect(http_client: httpx2.AsyncClient) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=base_url, api_key=key.get_secret_value(), http_client=http_client)

    return ChatCompletions(
        name,
        entry,
        connect,
        dialect=Dialect(options=options),
        secret=key.get_secret_value,
        http_client=around.http_client,
    )
