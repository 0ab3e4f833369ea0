"""Shared by the tests of llama.cpp in process: the tiny model's options, and a provider of it."""

from pathlib import Path
from typing import Any

from connectors.providers.base import Provider
from connectors.providers.registry import build_provider
from policy.catalogue import ProviderEntry

CONTEXT_TOKENS = 4096
NO_LLAMA = "the extra llama-cpp is not installed: it compiles for minutes"
NO_GGUF = "gguf, which writes the tiny model, is not installed"
YES = {"enum": ["yes"]}
"""A schema with one answer."""


def options(path: Path, **more: Any) -> dict[str, Any]:
    """For one thread, so that the machine's other tests go on."""
    return {"model_path": str(path), "context_tokens": CONTEXT_TOKENS, "threads": 1} | more


def provider_of(path: Path, **more: Any) -> Provider:
    """A provider of the model in this file."""
    entry = ProviderEntry(type="llama_cpp", models=["tiny"], options=options(path, **more))
    return build_provider("local", entry, environ={})
