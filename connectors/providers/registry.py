"""The types of providers that exist: the one place where they are registered.

A type's code, and with it the SDK, is imported when a provider of it is built: only the process that serves its lane
pays for it, in memory and in installed packages. Options are plain models, so that every process can check them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from connectors.providers import (
    anthropic,
    azure_openai,
    google,
    llama_cpp,
    openai,
    openai_compatible,
    openrouter,
    replay,
    vllm,
)
from connectors.providers.errors import MissingExtraError, ProviderConfigurationError
from connectors.providers.llama_cpp_options import LlamaCppOptions
from connectors.providers.openai_options import ChatOptions
from connectors.providers.simulated_options import SimulatedOptions

if TYPE_CHECKING:
    import httpx2

    from connectors.providers.base import Provider
    from policy.catalogue import ProviderEntry


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What a provider may take from the process it runs in."""

    http_client: httpx2.AsyncClient | None = None
    environ: Mapping[str, str]


def _named_key_variable(entry: ProviderEntry) -> str | None:
    return entry.api_key_env


@dataclass(frozen=True, kw_only=True, slots=True)
class ProviderType:
    """A value of `type` in providers.toml.

    `extra`: the optional dependency that `load` needs. `key_variable`: where an entry's key is.
    `structured_output`: how a model with these options is asked for JSON by a schema, in a word.
    `default_concurrency`: calls at once where an entry does not say; None: as many as the worker makes of any type.
    """

    options: type[BaseModel]
    load: Callable[[str, ProviderEntry, Surroundings], Provider]
    extra: str | None = None
    key_variable: Callable[[ProviderEntry], str | None] = _named_key_variable
    structured_output: Callable[[Any, str], str] = lambda _options, _model: "none"
    default_concurrency: int | None = None


def _simulated(name: str, entry: ProviderEntry, _surroundings: Surroundings) -> Provider:
    from connectors.providers.simulated import SimulatedProvider  # noqa: PLC0415 - see above

    return SimulatedProvider(name, SimulatedOptions.model_validate(entry.options))


PROVIDER_TYPES: dict[str, ProviderType] = {
    "simulated": ProviderType(
        options=SimulatedOptions, load=_simulated, structured_output=lambda *_: "comparisons alone"
    ),
    "openai": ProviderType(
        options=openai.OpenAIOptions,
        load=openai.build,
        extra="openai",
        key_variable=openai.key_variable,
        structured_output=ChatOptions.structured_output_of,
    ),
    "azure_openai": ProviderType(
        options=azure_openai.AzureOpenAIOptions,
        load=azure_openai.build,
        extra="openai",
        key_variable=azure_openai.key_variable,
        structured_output=ChatOptions.structured_output_of,
    ),
    "openrouter": ProviderType(
        options=openrouter.OpenRouterOptions,
        load=openrouter.build,
        extra="openai",
        key_variable=openrouter.key_variable,
        structured_output=ChatOptions.structured_output_of,
    ),
    "vllm": ProviderType(
        options=vllm.VLLMOptions,
        load=vllm.build,
        extra="openai",
        structured_output=ChatOptions.structured_output_of,
    ),
    "openai_compatible": ProviderType(
        options=openai_compatible.OpenAICompatibleOptions,
        load=openai_compatible.build,
        extra="openai",
        structured_output=ChatOptions.structured_output_of,
    ),
    "anthropic": ProviderType(
        options=anthropic.AnthropicOptions,
        load=anthropic.build,
        extra="anthropic",
        key_variable=anthropic.key_variable,
        structured_output=lambda options, _model: str(options.structured_output),
    ),
    "google": ProviderType(
        options=google.GoogleOptions,
        load=google.build,
        extra="google",
        key_variable=google.key_variable,
        structured_output=lambda *_: "response_json_schema",
    ),
    "llama_cpp": ProviderType(
        options=LlamaCppOptions,
        load=llama_cpp.build,
        extra="llama-cpp",
        structured_output=lambda *_: "grammar",
        default_concurrency=1,
    ),
    "replay": ProviderType(options=replay.ReplayOptions, load=replay.build, structured_output=lambda *_: "as recorded"),
}


def build_provider(
    name: str,
    entry: ProviderEntry,
    *,
    http_client: httpx2.AsyncClient | None = None,
    environ: Mapping[str, str] | None = None,
) -> Provider:
    """Builds a configured provider. Who calls this closes it; a client that is passed in stays open.

    Raises `ProviderConfigurationError` for an unknown type, wrong options, a missing key or a missing package.
    """
    kind = PROVIDER_TYPES.get(entry.type)
    if kind is None:
        raise ProviderConfigurationError(name, unknown_type(entry.type))
    surroundings = Surroundings(http_client=http_client, environ=os.environ if environ is None else environ)
    try:
        return kind.load(name, entry, surroundings)
    except ModuleNotFoundError as error:
        if kind.extra is None:
            raise
        raise MissingExtraError(name, extra=kind.extra, package=error.name or kind.extra) from error
    except ValidationError as error:
        # A misspelt option causes two errors; the one that is there says more than the one that is missing.
        detail = min(error.errors(include_url=False, include_input=False), key=lambda found: found["type"] == "missing")
        place = ".".join(str(step) for step in ("options", *detail["loc"]))
        raise ProviderConfigurationError(name, f"{place}: {detail['msg']}") from error


def unknown_type(given: str) -> str:
    """What to say of a type that is not registered."""
    return f"there is no provider type {given!r}; one of: {', '.join(PROVIDER_TYPES)}"
