"""Shared by the tests of all providers that speak chat completions: one call, and what the server saw of it."""

from typing import Any

import httpx2

from connectors.providers.base import Provider
from connectors.providers.registry import build_provider
from policy.catalogue import ProviderEntry
from tests.providers.calls import a_call, answer_of
from tests.support.chat_server import ANSWER, Asked, ChatServer

KEY = "sk-very-secret"
ENVIRON = {"KEY": KEY}


def chat_provider(
    kind: str,
    server: ChatServer,
    *,
    path: str = "/v1",
    http_client: httpx2.AsyncClient | None = None,
    **parts: Any,
) -> Provider:
    """A provider of this type at the server."""
    entry = {"type": kind, "models": ["m"], "base_url": server.url + path, "api_key_env": "KEY"} | parts
    return build_provider("remote", ProviderEntry.model_validate(entry), http_client=http_client, environ=ENVIRON)


async def asked(provider: Provider, server: ChatServer, **parts: Any) -> Asked:
    """What the server saw of one call that went well. Closes the provider."""
    answer = await answer_of(provider, a_call(**parts))
    await provider.close()
    assert answer.text == ANSWER
    return server.asked[-1]
