"""What is sent to an OpenAI-compatible server, and how a provider of that type is built."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from connectors.providers import http_client
from connectors.providers.errors import ProviderConfigurationError
from connectors.providers.http_client import new_http_client
from connectors.providers.registry import build_provider
from policy.catalogue import ProviderEntry
from policy.comparison import COMPARISON_SCHEMA
from schemas.request import Message, Parameters
from schemas.vocabulary import FailureCategory, Role
from tests.providers.calls import QUESTION, a_call, answer_of, failure_of
from tests.support.fault_cases import CASES
from tests.support.fault_server import Exchange, FaultServer

KEY = "sk-very-secret"


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with FaultServer(CASES) as running:
        yield running


def an_entry(**parts: Any) -> ProviderEntry:
    return ProviderEntry.model_validate({"type": "openai", "models": ["m"]} | parts)


async def sent(server: FaultServer, entry: ProviderEntry | None = None, **parts: Any) -> Exchange:
    """What the server saw of one good call."""
    entry = entry or an_entry(base_url=server.base_url, api_key_env="KEY")
    provider = build_provider("remote", entry, environ={"KEY": KEY, "OPENAI_API_KEY": "sk-not-for-others"})
    await answer_of(provider, a_call(model="good", **parts))
    await provider.close()
    return server.exchanges[-1]


async def test_what_was_left_open_is_not_sent(server: FaultServer) -> None:
    """Without parameters the body holds the model and the messages, and nothing else."""
    assert (await sent(server)).body == {"model": "good", "messages": [{"role": "user", "content": QUESTION}]}


async def test_parameters_are_sent_by_their_names(server: FaultServer) -> None:
    """Each parameter that is given arrives, also one that is zero."""
    parameters = Parameters(temperature=0, top_p=0.5, max_tokens=7, seed=0, stop=["END"], system_prompt="in messages")
    body = (await sent(server, parameters=parameters)).body
    del body["messages"], body["model"]
    assert body == {"temperature": 0, "top_p": 0.5, "max_tokens": 7, "seed": 0, "stop": ["END"]}


async def test_the_limit_of_tokens_has_the_name_that_the_server_knows(server: FaultServer) -> None:
    """An option sets the name; without it, it goes by the address."""
    entry = an_entry(base_url=server.base_url, options={"token_limit_parameter": "max_completion_tokens"})
    body = (await sent(server, entry, parameters=Parameters(max_tokens=7))).body
    assert body["max_completion_tokens"] == 7
    assert "max_tokens" not in body


async def test_a_stream_asks_for_its_usage(server: FaultServer) -> None:
    """Without asking, a stream would not say what it cost."""
    body = (await sent(server, stream=True)).body
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})


async def test_roles_and_order_of_messages_are_kept(server: FaultServer) -> None:
    """System, user and assistant turns arrive as they are."""
    turns = [(Role.SYSTEM, "Be brief."), (Role.USER, "Hi."), (Role.ASSISTANT, "Hello."), (Role.USER, "Why?")]
    messages = tuple(Message(role=role, content=content) for role, content in turns)
    body = (await sent(server, messages=messages)).body
    assert [(turn["role"], turn["content"]) for turn in body["messages"]] == turns


async def test_a_schema_goes_as_strict_response_format(server: FaultServer) -> None:
    """A comparison is asked for in strict mode."""
    body = (await sent(server, response_schema=COMPARISON_SCHEMA, response_schema_name="comparison")).body
    assert body["response_format"]["type"] == "json_schema"
    assert body["response_format"]["json_schema"]["strict"] is True
    assert body["response_format"]["json_schema"]["name"] == "comparison"


async def test_the_key_that_is_named_is_sent(server: FaultServer) -> None:
    """The variable named by api_key_env holds the key; white space around it is not part of it."""
    entry = an_entry(base_url=server.base_url, api_key_env="KEY")
    provider = build_provider("remote", entry, environ={"KEY": f" {KEY}\n"})
    await answer_of(provider, a_call(model="good"))
    await provider.close()
    assert server.exchanges[0].headers["authorization"] == f"Bearer {KEY}"


async def test_openai_s_own_key_is_not_sent_elsewhere(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that no key is named for gets a placeholder, and nothing of the OpenAI account of the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-others")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-not-for-others")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-not-for-others")
    exchange = await sent(server, an_entry(base_url=server.base_url))
    assert "not-for-others" not in str(exchange.headers)


async def test_organization_and_project_come_from_the_options(server: FaultServer) -> None:
    """They are sent where they are configured."""
    options = {"organization": "org-1", "project": "proj-1"}
    headers = (await sent(server, an_entry(base_url=server.base_url, options=options))).headers
    assert (headers["openai-organization"], headers["openai-project"]) == ("org-1", "proj-1")


@pytest.mark.parametrize(
    "address", [{}, {"base_url": "https://api.openai.com/v1"}, {"base_url": "https://eu.api.openai.com/v1"}]
)
def test_openai_needs_a_key(address: dict[str, str]) -> None:
    """Without one the provider is not built, and the message names the variable."""
    with pytest.raises(ProviderConfigurationError, match="OPENAI_API_KEY"):
        build_provider("remote", an_entry(**address), environ={})


@pytest.mark.parametrize("value", ["", "  "])
def test_a_named_key_must_be_there(value: str) -> None:
    """A variable that is named and empty is an error, also for servers that may not need a key."""
    entry = an_entry(base_url="http://127.0.0.1:9/v1", api_key_env="SOME_KEY")
    with pytest.raises(ProviderConfigurationError, match="SOME_KEY") as caught:
        build_provider("remote", entry, environ={"SOME_KEY": value})
    assert caught.value.provider == "remote"


@pytest.mark.parametrize("key", ["sk-with space", "sk-with\nnewline", "sk-ünïcode"])
def test_a_key_that_cannot_be_one_is_not_shown(key: str) -> None:
    """The message names the variable, never what it holds."""
    with pytest.raises(ProviderConfigurationError, match="OPENAI_API_KEY") as caught:
        build_provider("remote", an_entry(), environ={"OPENAI_API_KEY": key})
    assert "sk-" not in str(caught.value)


async def test_the_key_is_in_no_representation() -> None:
    """Neither the provider nor anything it holds prints the key."""
    provider = build_provider("remote", an_entry(), environ={"OPENAI_API_KEY": KEY})
    assert KEY not in repr(provider)
    assert KEY not in repr(vars(provider))
    await provider.close()


async def test_a_shared_client_stays_open(server: FaultServer) -> None:
    """Closing one provider leaves the connections of the others alone."""
    async with new_http_client() as shared:
        entry = an_entry(base_url=server.base_url)
        first, second = (build_provider(name, entry, http_client=shared, environ={}) for name in ("one", "two"))
        await answer_of(first, a_call(model="good"))
        await first.close()
        await answer_of(second, a_call(model="good"))
        await second.close()
        assert not shared.is_closed


async def test_an_own_client_is_closed(server: FaultServer) -> None:
    """A provider that made its client ends it."""
    provider = build_provider("one", an_entry(base_url=server.base_url), environ={})
    await provider.close()
    with pytest.raises(RuntimeError, match="closed"):
        await answer_of(provider, a_call(model="good"))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_without_bounds_is_cut_off(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """A body beyond the limit is not read into memory: the call fails as malformed."""
    monkeypatch.setattr(http_client, "MAX_RESPONSE_BYTES", 300)
    provider = build_provider("one", an_entry(base_url=server.base_url), environ={})
    failed = await failure_of(provider, a_call(model="good", stream=stream))
    await provider.close()
    assert failed.problem.category is FailureCategory.MALFORMED
    assert "larger" in failed.problem.message


async def test_proxies_of_the_environment_are_used(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a company's proxy calls go through it: here the fault server stands in for one."""
    monkeypatch.setenv("HTTP_PROXY", server.base_url.removesuffix("/v1"))
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    exchange = await sent(server, an_entry(base_url="http://model.invalid/v1"))
    assert exchange.headers["host"] == "model.invalid"
