"""Azure: deployments, API versions, keys and tokens. Its failures are those of all chat completions."""

import sys
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from connectors.providers.errors import MissingExtraError, ProviderConfigurationError
from connectors.providers.registry import build_provider
from policy.catalogue import ProviderEntry
from schemas.request import Parameters
from schemas.vocabulary import FailureCategory
from tests.providers.calls import a_call, answer_of, failure_of
from tests.providers.chat_calls import KEY, asked, chat_provider
from tests.support.chat_server import ChatServer, chat_server

VERSION = {"api_version": "2024-10-21"}
TOKEN = "token-of-a-managed-identity"  # noqa: S105 - what the identity server below gives out
ENTRA = {"authentication": "entra_id"}


@pytest.fixture
async def server() -> AsyncIterator[ChatServer]:
    async with chat_server() as running:
        yield running


@pytest.mark.parametrize("stream", [False, True])
async def test_a_dated_version_goes_by_deployment(server: ChatServer, stream: bool) -> None:
    """The model is a part of the path, the version of the query, and the key has a header of its own."""
    provider = chat_provider("azure_openai", server, path="", options=VERSION)
    seen = await asked(provider, server, model="my-deployment", stream=stream)
    assert seen.path == "/openai/deployments/my-deployment/chat/completions"
    assert seen.query == {"api-version": "2024-10-21"}
    assert seen.headers["api-key"] == KEY
    assert "authorization" not in seen.headers


async def test_a_model_may_have_a_deployment_of_another_name(server: ChatServer) -> None:
    """The options say which."""
    options = VERSION | {"deployments": {"gpt-5.4-mini": "essays-west"}}
    seen = await asked(chat_provider("azure_openai", server, path="", options=options), server, model="gpt-5.4-mini")
    assert "/deployments/essays-west/" in seen.path
    assert seen.body["model"] == "essays-west"


@pytest.mark.parametrize("path", ["", "/", "/openai/v1", "/openai/v1/"])
async def test_without_a_version_it_is_the_v1_api(server: ChatServer, path: str) -> None:
    """It has no deployments in its path and no version; the address may name it or not."""
    seen = await asked(chat_provider("azure_openai", server, path=path), server, model="my-deployment")
    assert (seen.path, seen.query) == ("/openai/v1/chat/completions", {})
    assert seen.body["model"] == "my-deployment"
    assert seen.headers["authorization"] == f"Bearer {KEY}"


async def test_the_limit_of_tokens(server: ChatServer) -> None:
    """Reasoning models refuse max_tokens; for an old version an option brings it back."""
    parameters = Parameters(max_tokens=7)
    new = await asked(chat_provider("azure_openai", server), server, parameters=parameters)
    options = VERSION | {"token_limit_parameter": "max_tokens"}
    old = await asked(chat_provider("azure_openai", server, options=options), server, parameters=parameters)
    assert (new.body["max_completion_tokens"], old.body["max_tokens"]) == (7, 7)


async def test_azure_s_environment_is_not_used(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever variables the SDK knows: only what is configured is sent."""
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "not-for-others")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "not-for-others")
    monkeypatch.setenv("OPENAI_API_VERSION", "not-for-others")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "authorization: not-for-others\nx-more: not-for-others")
    for options in ({}, VERSION):
        seen = await asked(chat_provider("azure_openai", server, options=options), server)
        assert "not-for-others" not in str(seen)


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"api_key_env": "KEY"}, "base_url"),
        ({"base_url": "https://mine.openai.azure.com"}, "AZURE_OPENAI_API_KEY"),
        ({"base_url": "https://mine.openai.azure.com", "options": {"api_version": "latest"}}, "options.api_version"),
    ],
)
def test_what_is_missing_is_named(entry: dict[str, object], named: str) -> None:
    """A provider that cannot work is not built, and the message says what to change."""
    whole = ProviderEntry.model_validate({"type": "azure_openai", "models": ["m"]} | entry)
    with pytest.raises(ProviderConfigurationError, match=named):
        build_provider("remote", whole, environ={"KEY": KEY})


@pytest.fixture
async def identity(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[str]]:
    """The identity endpoint that Azure's App Service gives to its processes. The list: the resources asked for."""
    pytest.importorskip("azure.identity", reason="the extra azure is not installed")
    resources: list[str] = []

    async def give(request: web.Request) -> web.Response:
        resources.append(request.query["resource"])
        token = {"access_token": TOKEN, "expires_on": "4102444800", "resource": resources[-1], "token_type": "Bearer"}
        return web.json_response(token)

    app = web.Application()
    app.router.add_get("/token", give)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://{host}:{port}/token")
    monkeypatch.setenv("IDENTITY_HEADER", "some-header")
    yield resources
    await runner.cleanup()


@pytest.mark.parametrize("options", [ENTRA, ENTRA | VERSION])
async def test_a_token_of_the_process_s_identity(
    server: ChatServer, identity: list[str], options: dict[str, str]
) -> None:
    """Azure's own library asks the platform for a token, keeps it, and it is sent in place of a key."""
    provider = chat_provider("azure_openai", server, options=options, api_key_env=None)
    for _ in range(2):
        await answer_of(provider, a_call())
        assert server.asked[-1].headers["authorization"] == f"Bearer {TOKEN}"
        assert "api-key" not in server.asked[-1].headers
    await provider.close()
    assert identity == ["https://cognitiveservices.azure.com"]


async def test_a_quoted_token_stays_out_of_messages(server: ChatServer, identity: list[str]) -> None:
    """A server that quotes it in an error does not get it into our records."""
    provider = chat_provider("azure_openai", server, options=ENTRA, api_key_env=None)
    server.status, server.reply = 403, {"error": {"message": f"{TOKEN} may not do this"}}
    failed = await failure_of(provider, a_call())
    await provider.close()
    assert failed.problem.message == "HTTP 403"


async def test_no_token_is_a_failure_of_authentication(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the identity cannot be used nothing is sent, and the call fails in its category."""
    pytest.importorskip("azure.identity", reason="the extra azure is not installed")
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:9/token")
    monkeypatch.setenv("IDENTITY_HEADER", "some-header")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    provider = chat_provider("azure_openai", server, options=ENTRA, api_key_env=None)
    failed = await failure_of(provider, a_call())
    await provider.close()
    assert failed.problem.category is FailureCategory.AUTHENTICATION
    assert not failed.possibly_billed
    assert server.asked == []


def test_tokens_need_azure_s_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed the message says how to get it."""
    monkeypatch.delitem(sys.modules, "connectors.providers.azure_token", raising=False)
    monkeypatch.setitem(sys.modules, "azure.identity.aio", None)
    entry = ProviderEntry.model_validate(
        {"type": "azure_openai", "models": ["m"], "base_url": "https://mine.openai.azure.com", "options": ENTRA}
    )
    with pytest.raises(MissingExtraError, match=r"sluice\[azure\]"):
        build_provider("remote", entry, environ={})
