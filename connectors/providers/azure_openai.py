"""Azure OpenAI, by the OpenAI SDK: a resource of one's own, where a model is known by the name of its deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from connectors.providers.api_key import api_key
from connectors.providers.errors import MissingExtraError, ProviderConfigurationError
from connectors.providers.openai_options import ChatOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx2
    from openai import AsyncOpenAI

    from connectors.providers.azure_token import EntraToken
    from connectors.providers.base import Provider
    from connectors.providers.registry import Surroundings
    from policy.catalogue import ProviderEntry

DEFAULT_KEY_VARIABLE = "AZURE_OPENAI_API_KEY"


class AzureOpenAIOptions(ChatOptions):
    """The resource's address is `base_url`: https://NAME.openai.azure.com.

    `api_version`: absent for the v1 API, which has none.
    `deployments`: the deployment of each model; one that is not named here has its deployment named like it.
    `authentication`: `entra_id` takes tokens of whatever identity the process has (DefaultAzureCredential).
    """

    api_version: str | None = Field(default=None, pattern=r"^\d{4}-\d{2}-\d{2}(-preview)?$")
    deployments: dict[str, str] = Field(default_factory=dict)
    authentication: Literal["api_key", "entra_id"] = "api_key"
    token_scope: str = "https://cognitiveservices.azure.com/.default"  # noqa: S105 - what a token is for


def build(name: str, entry: ProviderEntry, around: Surroundings) -> Provider:
    """A provider of type `azure_openai`."""
    from openai import AsyncAzureOpenAI, AsyncOpenAI  # noqa: PLC0415 - only where this lane runs

    from connectors.providers.openai_chat import ChatCompletions, Dialect  # noqa: PLC0415 - likewise

    options = AzureOpenAIOptions.model_validate(entry.options)
    if entry.base_url is None:
        raise ProviderConfigurationError(name, "base_url is missing; the resource's https://NAME.openai.azure.com")
    endpoint = entry.base_url.rstrip("/").removesuffix("/openai/v1")
    key: str | None = None
    token: Callable[[], Awaitable[str]] | None = None
    secret: Callable[[], str]
    and_close: Callable[[], Awaitable[None]] | None = None
    if options.authentication == "entra_id":
        token = tokens = _entra_token(name, options)
        secret, and_close = tokens.last, tokens.close
    else:
        masked = api_key(name, key_variable(entry) or DEFAULT_KEY_VARIABLE, around.environ)
        key, secret = masked.get_secret_value(), masked.get_secret_value

    def connect(http_client: httpx2.AsyncClient) -> AsyncOpenAI:
        if options.api_version is None:
            return AsyncOpenAI(base_url=f"{endpoint}/openai/v1", api_key=key or token, http_client=http_client)
        return AsyncAzureOpenAI(
            azure_endpoint=endpoint,
            api_version=options.api_version,
            api_key=key,
            azure_ad_token_provider=token,
            http_client=http_client,
        )

    return ChatCompletions(
        name,
        entry,
        connect,
        dialect=Dialect(
            options=options,
            output_limit="max_completion_tokens",
            model_names=options.deployments,
            lists_our_models=False,  # but those that could be deployed
        ),
        secret=secret,
        http_client=around.http_client,
        and_close=and_close,
    )


def _entra_token(name: str, options: AzureOpenAIOptions) -> EntraToken:
    try:
        from connectors.providers.azure_token import EntraToken  # noqa: PLC0415 - only where it is wanted
    except ModuleNotFoundError as error:
        raise MissingExtraError(name, extra="azure", package="azure-identity") from error
    return EntraToken(scope=options.token_scope)


def key_variable(entry: ProviderEntry) -> str | None:
    """Where the key is; None where tokens are used."""
    if entry.options.get("authentication") == "entra_id":
        return None
    return entry.api_key_env or DEFAULT_KEY_VARIABLE
