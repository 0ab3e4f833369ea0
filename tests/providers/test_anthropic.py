"""What is sent to Anthropic, and what its own words mean. What holds for every provider is in `contract/`."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from connectors.providers.anthropic_errors import BY_TYPE
from connectors.providers.base import Answered, LimitedResource, Provider, Text
from connectors.providers.checking import Checkable, Reached
from connectors.providers.errors import ProviderConfigurationError
from connectors.providers.registry import build_provider
from policy.catalogue import ProviderEntry
from policy.comparison import COMPARISON_SCHEMA, parse_structured
from schemas.attempt import Problem
from schemas.request import Message, Parameters
from schemas.vocabulary import FailureCategory as F
from schemas.vocabulary import Role
from tests.providers.calls import QUESTION, a_call, answer_of, events_of, failure_of
from tests.support.fault_cases import CASES, VERDICT
from tests.support.fault_server import Case, Exchange, FaultServer
from tests.support.fault_wire import ANSWER, SERVED_MODEL, Ending, Fault
from tests.support.fault_wire_anthropic import AnthropicWire

KEY = "sk-ant-very-secret"
BOTH_WAYS = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
NOT_NATIVE: dict[str, Any] = {"type": "object", "properties": {"anything": {}}}
"""A property without a type: more than native structured output can express."""


def provider_for(server: FaultServer, **options: Any) -> Provider:
    parts = {"type": "anthropic", "models": ["m"], "base_url": server.base_url, "api_key_env": "KEY"}
    return build_provider("claude", ProviderEntry.model_validate(parts | {"options": options}), environ={"KEY": KEY})


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with FaultServer(CASES, AnthropicWire()) as running:
        yield running


async def sent(server: FaultServer, *, options: dict[str, Any] | None = None, **parts: Any) -> Exchange:
    """What the server saw of one answered call."""
    provider = provider_for(server, **(options or {}))
    await answer_of(provider, a_call(**{"model": "good"} | parts))
    await provider.close()
    return server.exchanges[-1]


async def test_what_was_left_open_is_not_sent(server: FaultServer) -> None:
    """The API insists on a limit of tokens, so that has a default; nothing else goes along."""
    turns = [{"role": "user", "content": QUESTION}]
    assert (await sent(server)).body == {"model": "good", "max_tokens": 4096, "messages": turns}


async def test_parameters_are_sent_by_their_names(server: FaultServer) -> None:
    """Each that is given arrives, also one that is zero; there is no seed in this API."""
    parameters = Parameters(temperature=0, top_p=0.5, max_tokens=7, seed=1, stop=["END"], system_prompt="in messages")
    body = (await sent(server, parameters=parameters)).body
    del body["messages"], body["model"]
    assert body == {"temperature": 0, "top_p": 0.5, "max_tokens": 7, "stop_sequences": ["END"]}


async def test_the_default_limit_of_tokens_can_be_set(server: FaultServer) -> None:
    """It is an option, for models that can say more or should say less."""
    assert (await sent(server, options={"default_max_tokens": 99})).body["max_tokens"] == 99


async def test_a_long_answer_needs_no_stream(server: FaultServer) -> None:
    """By itself the SDK refuses to wait for more than 21,333 tokens; our limits on time are enough."""
    assert (await sent(server, parameters=Parameters(max_tokens=64_000))).body["max_tokens"] == 64_000


async def test_system_messages_go_where_the_api_has_them(server: FaultServer) -> None:
    """Apart from the turns, each a block of its own, in their order."""
    turns = [(Role.SYSTEM, "Be brief."), (Role.USER, "Hi."), (Role.ASSISTANT, "Hello."), (Role.SYSTEM, "Be kind.")]
    messages = tuple(Message(role=role, content=content) for role, content in [*turns, (Role.USER, "Why?")])
    body = (await sent(server, messages=messages)).body
    assert [block["text"] for block in body["system"]] == ["Be brief.", "Be kind."]
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]


async def test_a_schema_is_asked_for_natively(server: FaultServer) -> None:
    """The form is guaranteed; what the API cannot guarantee stands in the descriptions."""
    body = (await sent(server, model="structured", response_schema=COMPARISON_SCHEMA)).body
    form = body["output_config"]["format"]
    assert form["type"] == "json_schema"
    assert form["schema"]["required"] == ["winner", "justification", "confidence"]
    assert form["schema"]["additionalProperties"] is False
    assert "maximum: 5.0" in form["schema"]["properties"]["confidence"]["description"]
    assert "tools" not in body


@BOTH_WAYS
async def test_a_schema_can_be_asked_for_by_a_tool(server: FaultServer, stream: bool) -> None:
    """The tool is forced, and its input is the answer, also as it streams."""
    provider = provider_for(server, structured_output="tool")
    call = a_call(
        model="structured", stream=stream, response_schema=COMPARISON_SCHEMA, response_schema_name="Verdict, please"
    )
    *pieces, answer = await events_of(provider, call)
    await provider.close()
    assert isinstance(answer, Answered)
    assert json.loads(answer.text) == json.loads(VERDICT)
    assert parse_structured(answer.text, COMPARISON_SCHEMA) == answer.text
    assert len(pieces) == (2 if stream else 0)
    body = server.exchanges[0].body
    assert body["tools"][0]["input_schema"] == COMPARISON_SCHEMA
    assert body["tool_choice"]["name"] == body["tools"][0]["name"] == "Verdict__please"
    assert "output_config" not in body


async def test_a_schema_beyond_the_native_way_goes_by_a_tool(server: FaultServer) -> None:
    """Nothing of the user's schema is given up."""
    body = (await sent(server, model="structured", response_schema=NOT_NATIVE)).body
    assert body["tools"][0]["input_schema"] == NOT_NATIVE


async def test_the_key_is_a_bearer_token(server: FaultServer) -> None:
    """As this version of the SDK has it."""
    assert (await sent(server)).headers["authorization"] == f"Bearer {KEY}"


async def test_a_server_without_a_key_gets_a_placeholder(server: FaultServer) -> None:
    """The account's own key goes to Anthropic alone, unless the entry names it."""
    entry = ProviderEntry.model_validate({"type": "anthropic", "models": ["m"], "base_url": server.base_url})
    provider = build_provider("claude", entry, environ={"ANTHROPIC_API_KEY": KEY})
    await answer_of(provider, a_call(model="good"))
    await provider.close()
    assert KEY not in str(server.exchanges[0].headers)


@pytest.mark.parametrize("address", [{}, {"base_url": "https://api.anthropic.com"}])
def test_anthropic_needs_a_key(address: dict[str, str]) -> None:
    """Without one the provider is not built, and the message names the variable."""
    entry = ProviderEntry.model_validate({"type": "anthropic", "models": ["m"]} | address)
    with pytest.raises(ProviderConfigurationError, match="ANTHROPIC_API_KEY"):
        build_provider("claude", entry, environ={})


def test_an_address_with_its_version_is_refused() -> None:
    """The SDK would add it once more, and every call would end in a 404."""
    entry = ProviderEntry.model_validate(
        {"type": "anthropic", "models": ["m"], "base_url": "https://api.anthropic.com/v1"}
    )
    with pytest.raises(ProviderConfigurationError, match="without /v1"):
        build_provider("claude", entry, environ={"ANTHROPIC_API_KEY": KEY})


async def ends_with(stop_reason: str, *, stream: bool) -> list[Any]:
    """The events of a call whose answer ends with this `stop_reason`."""
    wire = AnthropicWire()

    async def answer(exchange: Exchange) -> None:
        if not stream:
            await exchange.send(
                200, wire.whole(ANSWER, Ending.WHOLE, exchange.asked).replace('"end_turn"', f'"{stop_reason}"')
            )
            return
        await exchange.tell()
        for event in wire.ending(Ending.WHOLE, exchange.asked):
            await exchange.raw(event.replace('"end_turn"', f'"{stop_reason}"'))
        await exchange.end_stream()

    async with FaultServer({"m": answer}, wire) as server:
        provider = provider_for(server)
        events = await events_of(provider, a_call(model="m", stream=stream))
        await provider.close()
    return events


@BOTH_WAYS
async def test_a_stop_sequence_ends_a_whole_answer(stream: bool) -> None:
    """The caller asked for that end."""
    answer = (await ends_with("stop_sequence", stream=stream))[-1]
    assert isinstance(answer, Answered)
    assert answer.text == ANSWER


@BOTH_WAYS
@pytest.mark.parametrize(
    ("stop_reason", "category", "retryable"),
    [
        ("max_tokens", F.TRUNCATED, False),
        ("model_context_window_exceeded", F.CONTEXT_LENGTH, False),
        ("refusal", F.REFUSAL, False),
        ("pause_turn", F.TRUNCATED, True),
        ("tool_use", F.MALFORMED, True),
    ],
)
async def test_other_ends_are_none(stop_reason: str, category: F, retryable: bool, stream: bool) -> None:
    """Each has its category, and may be on the bill. A tool that nobody offered is no answer."""
    failed = (await ends_with(stop_reason, stream=stream))[-1]
    assert (failed.problem.category, failed.problem.retryable) == (category, retryable)
    assert failed.problem.provider_code == stop_reason
    assert failed.possibly_billed


async def streamed(*events: str) -> list[Any]:
    """What comes of a call that is answered by these events and a clean end."""

    async def answer(exchange: Exchange) -> None:
        await exchange.begin_stream()
        for event in events:
            await exchange.raw(event)
        await exchange.end_stream()

    return await come_of(answer, stream=True)


async def come_of(behaviour: Case, *, stream: bool = False) -> list[Any]:
    """What comes of a call to a server that behaves so."""
    async with FaultServer({"m": behaviour}, AnthropicWire()) as server:
        provider = provider_for(server)
        events = await events_of(provider, a_call(model="m", stream=stream))
        await provider.close()
    return events


def event(kind: str, **fields: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | fields)}\n\n"


WIRE = AnthropicWire()
ASKED = WIRE.asked("", {"model": "m", "stream": True, "messages": [{"content": "?"}]})


async def test_a_stop_reason_alone_makes_no_answer() -> None:
    """Only `message_stop` says that nothing is missing."""
    *most, _stop = WIRE.ending(Ending.WHOLE, ASKED)
    failed = (await streamed(*WIRE.opening(ASKED), WIRE.piece(ANSWER, ASKED), *most))[-1]
    assert failed.problem.category is F.TRUNCATED
    assert failed.usage


async def test_thoughts_and_what_is_new_are_passed_over() -> None:
    """Anthropic adds types of events and blocks as it likes; the answer is the text."""
    thinking = {"type": "thinking", "thinking": "Hm.", "signature": ""}
    events = await streamed(
        WIRE.opening(ASKED)[0],
        event("content_block_start", index=0, content_block=thinking),
        event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "Hm."}),
        event("content_block_delta", index=0, delta={"type": "brand_new_delta", "novelty": 1}),
        event("brand_new_event", novelty=2),
        event("content_block_start", index=1, content_block={"type": "text", "text": "Two"}),
        WIRE.piece(" words.", ASKED),
        *WIRE.ending(Ending.WHOLE, ASKED),
    )
    *pieces, answer = events
    assert pieces == [Text("Two"), Text(" words.")]
    assert isinstance(answer, Answered)
    assert answer.text == ANSWER


@pytest.mark.parametrize(("kind", "category"), BY_TYPE.items())
async def test_an_error_event_is_read_by_its_type(kind: str, category: F) -> None:
    """There is no status to go by: the SDK says 200."""
    error = {"type": kind, "message": "As the type says"}
    failed = (await streamed(*WIRE.opening(ASKED), event("error", error=error)))[-1]
    assert (failed.problem.category, failed.problem.provider_code) == (category, kind)
    assert failed.problem.http_status is None
    assert failed.possibly_billed


@pytest.mark.parametrize(
    ("status", "kind", "details", "category"),
    [
        (429, "rate_limit_error", {"error_code": "enforced_spend_limit_reached"}, F.QUOTA_EXHAUSTED),
        (429, "rate_limit_error", None, F.RATE_LIMITED),
        (402, "billing_error", None, F.QUOTA_EXHAUSTED),
        (400, "invalid_request_error", {"error_code": "organization_on_hold"}, F.PERMISSION),
        (400, "invalid_request_error", {"error_code": 7}, F.INVALID_REQUEST),
    ],
)
async def test_an_error_s_code_says_more_than_its_status(
    status: int, kind: str, details: dict[str, Any] | None, category: F
) -> None:
    """A spending limit is no rate limit, though both are 429."""
    body = {"type": "error", "error": {"type": kind, "message": "No.", "details": details}}

    async def refuse(exchange: Exchange) -> None:
        await exchange.send(status, json.dumps(body))

    failed = (await come_of(refuse))[-1]
    assert (failed.problem.category, failed.problem.http_status) == (category, status)


@BOTH_WAYS
async def test_limits_are_read_from_the_headers(stream: bool) -> None:
    """With an answer, and with an error, in our one form."""
    soon = (datetime.now(UTC) + timedelta(seconds=30)).isoformat()
    headers = {
        "anthropic_ratelimit_requests_limit": "1000",
        "anthropic_ratelimit_requests_remaining": "999",
        "anthropic_ratelimit_requests_reset": soon,
        "anthropic_ratelimit_output_tokens_remaining": "0",
    }

    async def answer(exchange: Exchange) -> None:
        await exchange.send(200, WIRE.whole(ANSWER, Ending.WHOLE, exchange.asked), **headers)

    async def refuse(exchange: Exchange) -> None:
        await exchange.fail(Fault.RATE_LIMIT, **headers)

    for behaviour in (refuse,) if stream else (answer, refuse):
        requests, output_tokens = (await come_of(behaviour, stream=stream))[-1].limits
        assert (requests.resource, requests.limit, requests.remaining) == (LimitedResource.REQUESTS, 1000, 999)
        assert 0 < requests.resets_in_seconds <= 30
        assert (output_tokens.resource, output_tokens.remaining) == (LimitedResource.OUTPUT_TOKENS, 0)


async def test_a_check_lists_the_models(server: FaultServer) -> None:
    """It reaches the server with our key, and costs nothing."""
    provider = provider_for(server)
    assert isinstance(provider, Checkable)
    assert await provider.check(timeout_seconds=30) == Reached(models=(SERVED_MODEL,))
    await provider.close()
    (exchange,) = server.exchanges
    assert exchange.path.startswith("/v1/models")
    assert exchange.key == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("behaviour", "category"),
    [("status-401", F.AUTHENTICATION), ("reset-before-headers", F.CONNECTION), ("html", F.MALFORMED)],
)
async def test_a_check_that_fails_says_why(behaviour: str, category: F) -> None:
    """In the same terms as a call."""
    async with FaultServer({"list-of-models": CASES[behaviour]}, AnthropicWire()) as server:
        provider = provider_for(server)
        assert isinstance(provider, Checkable)
        found = await provider.check(timeout_seconds=30)
        await provider.close()
    assert isinstance(found, Problem)
    assert found.category is category


async def test_retries_of_the_sdk_are_off(server: FaultServer) -> None:
    """It would repeat a 429, and wait as long as the server likes."""
    provider = provider_for(server)
    await failure_of(provider, a_call(model="rate-limited-date"))
    await provider.close()
    assert len(server.exchanges) == 1
