"""vLLM: JSON by the whole of a schema, by the means that the server has."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from connectors.providers.errors import ProviderConfigurationError
from connectors.providers.registry import build_provider
from policy.catalogue import ProviderEntry
from policy.comparison import COMPARISON_SCHEMA
from schemas.request import Parameters
from schemas.vocabulary import FailureCategory
from tests.providers.calls import a_call, failure_of
from tests.providers.chat_calls import asked, chat_provider
from tests.support.chat_server import ChatServer, chat_server


@pytest.fixture
async def server() -> AsyncIterator[ChatServer]:
    async with chat_server() as running:
        yield running


async def body_with(server: ChatServer, **options: Any) -> dict[str, Any]:
    """What is sent for a comparison."""
    provider = chat_provider("vllm", server, options=options)
    return (await asked(provider, server, response_schema=COMPARISON_SCHEMA)).body


async def test_the_whole_schema_is_sent(server: ChatServer) -> None:
    """Unlike OpenAI's strict mode it holds a model to lengths, so they are not left out."""
    body = await body_with(server)
    assert body["response_format"]["json_schema"]["schema"] == COMPARISON_SCHEMA


@pytest.mark.parametrize(
    ("means", "sent"),
    [
        ("structured_outputs", {"structured_outputs": {"json": COMPARISON_SCHEMA}}),
        ("guided_json", {"guided_json": COMPARISON_SCHEMA}),
    ],
)
async def test_its_own_parameters(server: ChatServer, means: str, sent: dict[str, Any]) -> None:
    """A server that is declared to have them gets vLLM's own parameters, and no response_format."""
    body = await body_with(server, structured_output={"*": means})
    assert {name: body[name] for name in sent} == sent
    assert "response_format" not in body


async def test_max_tokens_and_further_parameters(server: ChatServer) -> None:
    """What the options add is sent with every call."""
    options = {"body": {"chat_template_kwargs": {"enable_thinking": False}}}
    provider = chat_provider("vllm", server, options=options)
    body = (await asked(provider, server, parameters=Parameters(max_tokens=7))).body
    assert body["max_tokens"] == 7
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


OLD_FORM = {"object": "error", "message": "maximum context length is 4096 tokens", "type": "BadRequestError"}


@pytest.mark.parametrize("status", [200, 400])
async def test_its_older_form_of_an_error(server: ChatServer, status: int) -> None:
    """An error that is the whole body, with a status of its own or not."""
    server.status, server.reply = status, OLD_FORM
    provider = chat_provider("vllm", server)
    failed = await failure_of(provider, a_call())
    await provider.close()
    assert failed.problem.category is FailureCategory.CONTEXT_LENGTH


def test_it_needs_an_address() -> None:
    """There is no vLLM of everybody's."""
    with pytest.raises(ProviderConfigurationError, match="base_url"):
        build_provider("remote", ProviderEntry(type="vllm", models=["m"]), environ={})
