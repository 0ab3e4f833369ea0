"""What is sent to Gemini, and what its own words mean. What holds for every provider is in `contract/`."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from connectors.providers.base import Answered, Provider, Text
from connectors.providers.checking import Checkable, Reached
from connectors.providers.errors import ProviderConfigurationError
from connectors.providers.google_answers import BAD_ENDS
from connectors.providers.google_errors import BY_WORD
from connectors.providers.registry import build_provider
from policy.catalogue import ProviderEntry
from policy.comparison import COMPARISON_SCHEMA
from schemas.attempt import Problem
from schemas.request import Message, Parameters
from schemas.vocabulary import FailureCategory as F
from schemas.vocabulary import Role
from tests.providers.calls import QUESTION, a_call, answer_of, events_of, failure_of
from tests.support.fault_cases import CASES
from tests.support.fault_server import Case, Exchange, FaultServer
from tests.support.fault_wire import ANSWER, SERVED_MODEL
from tests.support.fault_wire_gemini import GeminiWire

KEY = "gemini-very-secret"
BOTH_WAYS = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
WIRE = GeminiWire()


def provider_for(server: FaultServer, **options: Any) -> Provider:
    parts = {"type": "google", "models": ["m"], "base_url": server.base_url, "api_key_env": "KEY"}
    return build_provider("gemini", ProviderEntry.model_validate(parts | {"options": options}), environ={"KEY": KEY})


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with FaultServer(CASES, GeminiWire()) as running:
        yield running


async def sent(server: FaultServer, *, options: dict[str, Any] | None = None, **parts: Any) -> Exchange:
    """What the server saw of one answered call."""
    provider = provider_for(server, **(options or {}))
    await answer_of(provider, a_call(**{"model": "good"} | parts))
    await provider.close()
    return server.exchanges[-1]


async def test_what_was_left_open_is_not_sent(server: FaultServer) -> None:
    """Without parameters the body holds the turns, and nothing else."""
    exchange = await sent(server)
    turns = [{"role": "user", "parts": [{"text": QUESTION}]}]
    assert {name: value for name, value in exchange.body.items() if value} == {"contents": turns}


@BOTH_WAYS
async def test_the_address_has_the_stable_version(server: FaultServer, stream: bool) -> None:
    """`v1`, unless told otherwise: preview models need `v1beta`."""
    assert (await sent(server, stream=stream)).path.startswith("/v1/models/good:")
    assert (await sent(server, stream=stream, options={"api_version": "v1beta"})).path.startswith(
        "/v1beta/models/good:"
    )


async def test_parameters_are_sent_by_their_names(server: FaultServer) -> None:
    """Each that is given arrives, also one that is zero."""
    parameters = Parameters(temperature=0, top_p=0.5, max_tokens=7, seed=0, stop=["END"], system_prompt="in messages")
    body = (await sent(server, parameters=parameters)).body
    assert body["generationConfig"] == {
        "temperature": 0,
        "topP": 0.5,
        "maxOutputTokens": 7,
        "seed": 0,
        "stopSequences": ["END"],
    }


async def test_roles_and_system_messages_go_where_the_api_has_them(server: FaultServer) -> None:
    """The assistant is the model; what the system says is the instruction, in its order."""
    turns = [(Role.SYSTEM, "Be brief."), (Role.USER, "Hi."), (Role.ASSISTANT, "Hello."), (Role.SYSTEM, "Be kind.")]
    messages = tuple(Message(role=role, content=content) for role, content in [*turns, (Role.USER, "Why?")])
    body = (await sent(server, messages=messages)).body
    assert [part["text"] for part in body["systemInstruction"]["parts"]] == ["Be brief.", "Be kind."]
    assert [turn["role"] for turn in body["contents"]] == ["user", "model", "user"]


@BOTH_WAYS
async def test_a_schema_is_asked_for_natively_and_unchanged(server: FaultServer, stream: bool) -> None:
    """As JSON Schema: Google's own dialect would lose rules."""
    config = (await sent(server, model="structured", stream=stream, response_schema=COMPARISON_SCHEMA)).body[
        "generationConfig"
    ]
    assert config == {"responseMimeType": "application/json", "responseJsonSchema": COMPARISON_SCHEMA}


async def test_the_key_has_its_own_header(server: FaultServer) -> None:
    """Never in the address, where logs would keep it."""
    exchange = await sent(server)
    assert exchange.headers["x-goog-api-key"] == KEY
    assert KEY not in exchange.path


async def test_a_server_without_a_key_gets_a_placeholder(server: FaultServer) -> None:
    """The account's own key goes to Google alone, unless the entry names it."""
    entry = ProviderEntry.model_validate({"type": "google", "models": ["m"], "base_url": server.base_url})
    provider = build_provider("gemini", entry, environ={"GEMINI_API_KEY": KEY})
    await answer_of(provider, a_call(model="good"))
    await provider.close()
    assert KEY not in str(server.exchanges[0].headers)


def test_google_needs_a_key() -> None:
    """Without one the provider is not built, and the message names the variable."""
    entry = ProviderEntry.model_validate({"type": "google", "models": ["m"]})
    with pytest.raises(ProviderConfigurationError, match="GEMINI_API_KEY"):
        build_provider("gemini", entry, environ={})


@pytest.mark.parametrize("version", ["v1", "v1beta"])
def test_an_address_with_its_version_is_refused(version: str) -> None:
    """The SDK would add one once more, and every call would end in a 404."""
    address = f"https://generativelanguage.googleapis.com/{version}"
    entry = ProviderEntry.model_validate({"type": "google", "models": ["m"], "base_url": address})
    with pytest.raises(ProviderConfigurationError, match=r"options\.api_version"):
        build_provider("gemini", entry, environ={"GEMINI_API_KEY": KEY})


@pytest.mark.parametrize(
    "model", ["", "../other", "a/b", "m:countTokens", "m?key=x", "m#x", "m&x", "models/", "m m", "m..n", "m\n"]
)
@BOTH_WAYS
async def test_a_model_s_name_cannot_change_the_address(server: FaultServer, model: str, stream: bool) -> None:
    """It becomes part of it, so what is no name is not sent at all."""
    provider = provider_for(server)
    failed = await failure_of(provider, a_call(model=model, stream=stream))
    await provider.close()
    assert (failed.problem.category, failed.problem.field) == (F.INVALID_REQUEST, "model")
    assert not failed.possibly_billed
    assert not server.exchanges


async def test_a_call_of_system_messages_alone_is_not_sent(server: FaultServer) -> None:
    """Gemini has nothing to answer to."""
    provider = provider_for(server)
    messages = (Message(role=Role.SYSTEM, content="Be brief."),)
    failed = await failure_of(provider, a_call(model="good", messages=messages))
    await provider.close()
    assert (failed.problem.category, failed.problem.field) == (F.INVALID_REQUEST, "messages")
    assert not server.exchanges


async def come_of(behaviour: Case, *, stream: bool = False) -> tuple[list[Any], int]:
    """What comes of a call to a server that behaves so, and how many requests it saw."""
    async with FaultServer({"m": behaviour}, GeminiWire()) as server:
        provider = provider_for(server)
        events = await events_of(provider, a_call(model="m", stream=stream))
        await provider.close()
        return events, len(server.exchanges)


def answering(*candidates: dict[str, Any]) -> Case:
    """Answers with these candidates: one response each in a stream, the last one alone without."""

    async def answer(exchange: Exchange) -> None:
        bodies = [json.dumps({"candidates": [candidate], "responseId": "r"}) for candidate in candidates]
        if not exchange.streamed:
            await exchange.send(200, bodies[-1])
            return
        await exchange.begin_stream()
        for body in bodies:
            await exchange.raw(WIRE.event(body))
        await exchange.end_stream()

    return answer


def candidate(text: str | None, finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
    content = {"role": "model", "parts": [] if text is None else [{"text": text}]}
    return {"content": content, "index": 0} | ({"finishReason": finish_reason} if finish_reason else {}) | more


@BOTH_WAYS
@pytest.mark.parametrize(
    ("finish_reason", "category"),
    [(word, end.category) for word, end in BAD_ENDS.items() if word != "BLOCKED_PROMPT"]
    + [
        (word, F.MALFORMED)
        for word in ("OTHER", "MALFORMED_RESPONSE", "UNEXPECTED_TOOL_CALL", "FINISH_REASON_UNSPECIFIED")
    ],
)
async def test_other_ends_are_none(finish_reason: str, category: F, stream: bool) -> None:
    """Each has its category, and may be on the bill."""
    (*_, failed), requests = await come_of(answering(candidate(ANSWER, finish_reason)), stream=stream)
    assert (failed.problem.category, failed.problem.provider_code) == (category, finish_reason)
    assert failed.possibly_billed
    assert requests == 1


@BOTH_WAYS
async def test_the_sdk_does_not_go_on_by_itself(stream: bool) -> None:
    """A continuation would be another request, and another price."""
    going_on = candidate("Two", "CONTINUATION", continuationToken="dG9rZW4=")
    (*_, failed), requests = await come_of(answering(going_on), stream=stream)
    assert (failed.problem.category, failed.problem.retryable) == (F.TRUNCATED, False)
    assert requests == 1


@BOTH_WAYS
async def test_the_sdk_calls_no_functions(stream: bool) -> None:
    """A function that nobody offered is no answer."""
    called = {"content": {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]}, "index": 0}
    (*_, failed), requests = await come_of(answering(called | {"finishReason": "STOP"}), stream=stream)
    assert failed.problem.category is F.MALFORMED
    assert requests == 1


async def test_an_answer_may_end_in_the_chunk_that_holds_its_text() -> None:
    """Short ones do."""
    (piece, answer), _ = await come_of(answering(candidate(ANSWER, "STOP")), stream=True)
    assert piece == Text(ANSWER)
    assert isinstance(answer, Answered)


async def test_fields_that_are_new_are_passed_over() -> None:
    """Google adds to its answers as it likes."""
    new = candidate(ANSWER, "STOP", brandNew={"a": 1}) | {"groundingMetadata": {"brandNew": 1}}
    (answer,), _ = await come_of(answering(new))
    assert isinstance(answer, Answered)


def an_error(code: int, status: str, message: str = "No.", **detail: Any) -> str:
    return json.dumps({"error": {"code": code, "message": message, "status": status, "details": [detail]}})


PER_DAY = {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}
PER_MINUTE = {"violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel"}]}


@pytest.mark.parametrize(
    ("status", "body", "category"),
    [
        (400, an_error(400, "INVALID_ARGUMENT", reason="API_KEY_INVALID"), F.AUTHENTICATION),
        (400, an_error(400, "INVALID_ARGUMENT"), F.INVALID_REQUEST),
        (400, an_error(400, "FAILED_PRECONDITION"), F.INVALID_REQUEST),
        (403, an_error(403, "PERMISSION_DENIED", reason="BILLING_DISABLED"), F.QUOTA_EXHAUSTED),
        (403, an_error(403, "PERMISSION_DENIED"), F.PERMISSION),
        (429, an_error(429, "RESOURCE_EXHAUSTED", **PER_DAY), F.QUOTA_EXHAUSTED),
        (429, an_error(429, "RESOURCE_EXHAUSTED", **PER_MINUTE), F.RATE_LIMITED),
        (429, an_error(429, "RESOURCE_EXHAUSTED"), F.RATE_LIMITED),
        (429, "[" + an_error(429, "RESOURCE_EXHAUSTED", **PER_DAY) + "]", F.QUOTA_EXHAUSTED),
        (429, '{"error": "slow down"}', F.RATE_LIMITED),
        (429, '["slow", "down"]', F.RATE_LIMITED),
        (429, '{"error": {"details": [{"violations": [7]}, 7]}}', F.RATE_LIMITED),
        (500, "", F.SERVER_ERROR),
        (204, "", F.UNKNOWN),
    ],
)
@BOTH_WAYS
async def test_an_error_s_details_say_more_than_its_status(status: int, body: str, category: F, stream: bool) -> None:
    """Google answers a bad key with 400, and a used up day and a busy minute both with 429."""

    async def refuse(exchange: Exchange) -> None:
        await exchange.send(status, body)

    (failed,), _ = await come_of(refuse, stream=stream)
    assert (failed.problem.category, failed.problem.http_status) == (category, status)


async def test_the_wait_that_google_asks_for_is_in_the_details() -> None:
    """`RetryInfo`, where other providers send a header."""

    async def refuse(exchange: Exchange) -> None:
        detail = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "36.5s"}
        await exchange.send(429, an_error(429, "RESOURCE_EXHAUSTED", **detail))

    (failed,), _ = await come_of(refuse)
    assert failed.problem.retry_after_seconds == 36.5


@pytest.mark.parametrize(("word", "category"), BY_WORD.items())
async def test_an_error_amid_a_stream_is_read_by_its_word(word: str, category: F) -> None:
    """There is no status to go by but the one that it claims."""

    async def break_off(exchange: Exchange) -> None:
        await exchange.tell()
        await exchange.raw(WIRE.event(an_error(0, word)))
        await exchange.end_stream()

    (*_, failed), _ = await come_of(break_off, stream=True)
    assert (failed.problem.category, failed.problem.provider_code) == (category, word)
    assert failed.possibly_billed


async def test_a_check_lists_the_models(server: FaultServer) -> None:
    """It reaches the server with our key, and costs nothing."""
    provider = provider_for(server)
    assert isinstance(provider, Checkable)
    assert await provider.check(timeout_seconds=30) == Reached(models=(SERVED_MODEL,))
    await provider.close()
    (exchange,) = server.exchanges
    assert exchange.path.startswith("/v1/models")
    assert exchange.key == KEY


@pytest.mark.parametrize(
    ("behaviour", "category"),
    [("status-401", F.AUTHENTICATION), ("reset-before-headers", F.CONNECTION), ("html", F.MALFORMED)],
)
async def test_a_check_that_fails_says_why(behaviour: str, category: F) -> None:
    """In the same terms as a call."""
    async with FaultServer({"list-of-models": CASES[behaviour]}, GeminiWire()) as server:
        provider = provider_for(server)
        assert isinstance(provider, Checkable)
        found = await provider.check(timeout_seconds=30)
        await provider.close()
    assert isinstance(found, Problem)
    assert found.category is category


async def test_a_check_has_a_limit(server: FaultServer) -> None:
    """A server that says nothing is told from one that answers."""
    async with FaultServer({"list-of-models": CASES["silence"]}, GeminiWire()) as silent:
        provider = provider_for(silent)
        assert isinstance(provider, Checkable)
        found = await provider.check(timeout_seconds=0.2)
        await provider.close()
    assert isinstance(found, Problem)
    assert found.category is F.TIMEOUT_TOTAL


async def test_answers_of_a_good_stream_hold_no_thoughts(server: FaultServer) -> None:
    """What the model thinks is no part of what it says, and is paid for all the same."""
    provider = provider_for(server)
    answer = await answer_of(provider, a_call(model="good", stream=True))
    await provider.close()
    assert answer.text == ANSWER
    assert answer.usage
    assert answer.usage.output_tokens == 3
