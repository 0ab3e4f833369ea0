"""Any server of chat completions, by configuration alone."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from connectors.providers.base import LimitedResource, RateLimit
from connectors.providers.checking import Checkable, Reached
from connectors.providers.errors import ProviderConfigurationError
from connectors.providers.registry import build_provider
from policy.catalogue import ProviderEntry
from policy.comparison import COMPARISON_SCHEMA
from schemas.attempt import Problem
from schemas.request import Parameters
from schemas.vocabulary import FailureCategory
from tests.providers.calls import a_call, answer_of, failure_of
from tests.providers.chat_calls import KEY, asked, chat_provider
from tests.support.chat_server import ChatServer, chat_server

KIND = "openai_compatible"


@pytest.fixture
async def server() -> AsyncIterator[ChatServer]:
    async with chat_server() as running:
        yield running


async def test_the_least_configuration(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address is enough; nothing of an OpenAI account in the environment goes there."""
    for variable in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(variable, "not-for-others")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "authorization: not-for-others\nx-more: not-for-others")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9")
    seen = await asked(chat_provider(KIND, server, api_key_env=None), server)
    assert seen.path == "/v1/chat/completions"
    assert "not-for-others" not in str(seen)


async def test_a_key_in_a_header_of_its_own(server: ChatServer) -> None:
    """A gateway that wants the key elsewhere gets it there alone."""
    seen = await asked(chat_provider(KIND, server, options={"key_header": "X-Gateway-Key"}), server)
    assert seen.headers["x-gateway-key"] == KEY
    assert "authorization" not in seen.headers


async def test_headers_and_body_of_the_options(server: ChatServer) -> None:
    """They are sent with every call; what a request sets itself goes before them."""
    options = {"headers": {"X-Team": "essays"}, "body": {"temperature": 0.1, "min_p": 0.05}}
    parameters = Parameters(temperature=0.9)
    seen = await asked(chat_provider(KIND, server, options=options), server, parameters=parameters)
    assert seen.headers["x-team"] == "essays"
    assert (seen.body["temperature"], seen.body["min_p"]) == (0.9, 0.05)


async def test_a_server_without_stream_options(server: ChatServer) -> None:
    """One that refuses them is not sent them."""
    provider = chat_provider(KIND, server, options={"stream_usage": False})
    seen = await asked(provider, server, stream=True)
    assert seen.body["stream"] is True
    assert "stream_options" not in seen.body


@pytest.mark.parametrize(("means", "kept"), [({}, False), ({"*": "full_json_schema"}, True)])
async def test_how_much_of_a_schema_is_sent(server: ChatServer, means: dict[str, str], kept: bool) -> None:
    """OpenAI's part of it, unless the server is declared to take the whole, as llama.cpp's does."""
    provider = chat_provider(KIND, server, options={"structured_output": means})
    body = (await asked(provider, server, response_schema=COMPARISON_SCHEMA)).body
    justification = body["response_format"]["json_schema"]["schema"]["properties"]["justification"]
    assert ("minLength" in justification) is kept


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"headers": {"Authorization": "Bearer x"}}, "api_key_env"),
        ({"headers": {"cookie": "x"}}, "api_key_env"),
        ({"body": {"model": "other"}}, "model"),
        ({"body": {"n": 2}}, "may not hold n"),
        ({"key_header": "a header"}, "key_header"),
        ({"structured_output": {"*": "magic"}}, "structured_output"),
    ],
)
def test_options_that_would_do_harm(options: dict[str, Any], named: str) -> None:
    """Keys in a file, and parameters that would change what a request asked for, are refused by name."""
    entry = {"type": KIND, "models": ["m"], "base_url": "http://127.0.0.1:9/v1", "options": options}
    with pytest.raises(ProviderConfigurationError, match=named):
        build_provider("remote", ProviderEntry.model_validate(entry), environ={})


async def test_llama_cpp_s_server_and_a_full_context(server: ChatServer) -> None:
    """Its own error for a prompt that is too long ends in the category of all others."""
    error = {"code": 400, "message": "exceeds the available context size", "type": "exceed_context_size_error"}
    server.status, server.reply = 400, {"error": error}
    provider = chat_provider(KIND, server)
    failed = await failure_of(provider, a_call())
    await provider.close()
    assert failed.problem.category is FailureCategory.CONTEXT_LENGTH


async def test_json_without_an_end_is_malformed(server: ChatServer) -> None:
    """A body nested deeper than any reader goes is a failure like any other, not an exception."""
    nested: list[Any] = []
    for _ in range(900):
        nested = [nested]
    server.reply = {"choices": nested}
    provider = chat_provider(KIND, server)
    failed = await failure_of(provider, a_call())
    await provider.close()
    assert failed.problem.category is FailureCategory.MALFORMED


async def test_a_check_reads_the_list_of_models(server: ChatServer) -> None:
    """It costs nothing, and shows that the address and the key are right."""
    server.reply = {"object": "list", "data": [{"id": "one"}, {"id": "two"}, "odd"]}
    assert await checked(server) == Reached(models=("one", "two"))
    assert (server.asked[-1].method, server.asked[-1].path) == ("GET", "/v1/models")


async def test_a_check_of_a_refused_key(server: ChatServer) -> None:
    """The category says what is wrong; the message does not quote the key."""
    server.status, server.reply = 401, {"error": {"message": f"Incorrect API key: {KEY}"}}
    problem = await checked(server)
    assert isinstance(problem, Problem)
    assert problem.category is FailureCategory.AUTHENTICATION
    assert KEY not in problem.message


async def checked(server: ChatServer) -> Reached | Problem:
    provider = chat_provider(KIND, server)
    assert isinstance(provider, Checkable)
    found = await provider.check(timeout_seconds=30)
    await provider.close()
    return found


@pytest.mark.parametrize("stream", [False, True])
async def test_limits_come_with_an_answer(server: ChatServer, stream: bool) -> None:
    """What the headers say of limits is in the outcome, whichever way the answer came."""
    server.headers = {"x-ratelimit-remaining-tokens": "799975", "x-ratelimit-reset-tokens": "6m0s"}
    provider = chat_provider(KIND, server)
    answer = await answer_of(provider, a_call(stream=stream))
    await provider.close()
    assert answer.limits == (RateLimit(resource=LimitedResource.TOKENS, remaining=799_975, resets_in_seconds=360.0),)
