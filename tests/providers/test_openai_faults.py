"""Each way in which a provider fails ends in its category, with its verdict on retries and on the bill."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest

from connectors.providers.base import Answered, Failed, Provider, Text
from connectors.providers.registry import build_provider
from policy.catalogue import ProviderEntry, Timeouts
from schemas.attempt import Usage
from schemas.vocabulary import FailureCategory as F
from tests.providers.calls import a_call, answer_of, events_of, failure_of
from tests.support.fault_cases import ANSWER, CASES, PIECES
from tests.support.fault_server import REQUEST_ID, FaultServer

PATIENT = Timeouts(connect_seconds=60, first_token_seconds=60, stall_seconds=60, total_seconds=60)
IMPATIENT = Timeouts(connect_seconds=0.5, first_token_seconds=0.5, stall_seconds=0.5, total_seconds=0.5)
NEEDS_IMPATIENCE = {"silence", "no-first-token", "stall"}
USAGE = Usage(input_tokens=11, output_tokens=3, cached_input_tokens=4)


class Row(NamedTuple):
    """A behaviour of the server, and what it must come to. None: it cannot behave so without streaming."""

    case: str
    whole: F | None
    streamed: F
    retryable: bool
    billed: bool


RETRY, GIVE_UP = True, False
BILLED, FREE = True, False
ROWS = [
    Row("cut-at-the-limit", F.TRUNCATED, F.TRUNCATED, GIVE_UP, BILLED),
    Row("filtered", F.CONTENT_FILTER, F.CONTENT_FILTER, GIVE_UP, BILLED),
    Row("refused", F.REFUSAL, F.REFUSAL, GIVE_UP, BILLED),
    Row("unknown-end", F.MALFORMED, F.MALFORMED, RETRY, BILLED),
    Row("half-a-character", F.MALFORMED, F.MALFORMED, RETRY, BILLED),
    Row("reset-before-headers", F.CONNECTION, F.CONNECTION, RETRY, BILLED),
    Row("goodbye-before-headers", F.CONNECTION, F.CONNECTION, RETRY, BILLED),
    Row("goodbye-mid-answer", F.CONNECTION, F.CONNECTION, RETRY, BILLED),
    Row("reset-mid-stream", None, F.CONNECTION, RETRY, BILLED),
    Row("silence", F.TIMEOUT_TOTAL, F.TIMEOUT_FIRST_TOKEN, RETRY, BILLED),
    Row("no-first-token", None, F.TIMEOUT_FIRST_TOKEN, RETRY, BILLED),
    Row("stall", None, F.TIMEOUT_STALL, RETRY, BILLED),
    Row("clean-end-without-end", None, F.TRUNCATED, RETRY, BILLED),
    Row("cut-inside-event", None, F.TRUNCATED, RETRY, BILLED),
    Row("bad-chunk", None, F.MALFORMED, RETRY, BILLED),
    Row("chunk-of-another-kind", None, F.MALFORMED, RETRY, BILLED),
    Row("error-event", None, F.SERVER_ERROR, RETRY, BILLED),
    Row("rate-limit-event", None, F.RATE_LIMITED, RETRY, BILLED),
    Row("html", F.MALFORMED, F.MALFORMED, RETRY, BILLED),
    Row("broken-json", F.MALFORMED, F.MALFORMED, RETRY, BILLED),
    Row("empty-object", F.MALFORMED, F.MALFORMED, RETRY, BILLED),
    Row("not-a-stream", None, F.MALFORMED, RETRY, BILLED),
    Row("error-with-200", F.OVERLOADED, F.OVERLOADED, RETRY, BILLED),
    Row("redirect", F.NOT_FOUND, F.NOT_FOUND, GIVE_UP, FREE),
    Row("context-length", F.CONTEXT_LENGTH, F.CONTEXT_LENGTH, GIVE_UP, FREE),
    Row("context-length-of-vllm", F.CONTEXT_LENGTH, F.CONTEXT_LENGTH, GIVE_UP, FREE),
    Row("prompt-filtered", F.CONTENT_FILTER, F.CONTENT_FILTER, GIVE_UP, FREE),
    Row("quota", F.QUOTA_EXHAUSTED, F.QUOTA_EXHAUSTED, GIVE_UP, FREE),
    Row("rate-limited", F.RATE_LIMITED, F.RATE_LIMITED, RETRY, FREE),
    Row("status-400", F.INVALID_REQUEST, F.INVALID_REQUEST, GIVE_UP, FREE),
    Row("status-401", F.AUTHENTICATION, F.AUTHENTICATION, GIVE_UP, FREE),
    Row("status-402", F.QUOTA_EXHAUSTED, F.QUOTA_EXHAUSTED, GIVE_UP, FREE),
    Row("status-403", F.PERMISSION, F.PERMISSION, GIVE_UP, FREE),
    Row("status-404", F.NOT_FOUND, F.NOT_FOUND, GIVE_UP, FREE),
    Row("status-408", F.TIMEOUT_TOTAL, F.TIMEOUT_TOTAL, RETRY, BILLED),
    Row("status-409", F.OVERLOADED, F.OVERLOADED, RETRY, FREE),
    Row("status-413", F.INVALID_REQUEST, F.INVALID_REQUEST, GIVE_UP, FREE),
    Row("status-418", F.INVALID_REQUEST, F.INVALID_REQUEST, GIVE_UP, FREE),
    Row("status-422", F.INVALID_REQUEST, F.INVALID_REQUEST, GIVE_UP, FREE),
    Row("status-500", F.SERVER_ERROR, F.SERVER_ERROR, RETRY, BILLED),
    Row("status-502", F.SERVER_ERROR, F.SERVER_ERROR, RETRY, BILLED),
    Row("status-503", F.OVERLOADED, F.OVERLOADED, RETRY, FREE),
    Row("status-504", F.SERVER_ERROR, F.SERVER_ERROR, RETRY, BILLED),
    Row("status-529", F.OVERLOADED, F.OVERLOADED, RETRY, FREE),
]
ELSEWHERE = {"good", "good-then-reset", "echo-prompt", "echo-key", "rate-limited-seconds", "rate-limited-date"}

EXPECTED = [
    pytest.param(row, stream, id=f"{row.case}-{'streamed' if stream else 'whole'}")
    for row in ROWS
    for stream in (False, True)
    if stream or row.whole
]


def provider_at(base_url: str, **parts: Any) -> Provider:
    entry = {"type": "openai", "models": ["m"], "base_url": base_url, "timeouts": PATIENT}
    return build_provider("remote", ProviderEntry.model_validate(entry | parts), environ={"KEY": "sk-very-secret"})


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with FaultServer(CASES) as running:
        yield running


@pytest.fixture
async def provider(server: FaultServer) -> AsyncIterator[Provider]:
    built = provider_at(server.base_url, api_key_env="KEY")
    yield built
    await built.close()


def test_every_behaviour_of_the_server_is_expected() -> None:
    """No case is written and then forgotten."""
    assert {row.case for row in ROWS} | ELSEWHERE == set(CASES)


@pytest.mark.parametrize(("row", "stream"), EXPECTED)
async def test_a_failure_ends_in_its_category(server: FaultServer, row: Row, stream: bool) -> None:
    """One request, one failure: never an exception, never an answer, never a second request of the SDK's own."""
    provider = provider_at(server.base_url, timeouts=IMPATIENT if row.case in NEEDS_IMPATIENCE else PATIENT)
    failed = await failure_of(provider, a_call(model=row.case, stream=stream))
    await provider.close()
    assert failed.problem.category is (row.streamed if stream else row.whole)
    assert (failed.problem.retryable, failed.possibly_billed) == (row.retryable, row.billed)
    assert len(server.exchanges) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_good_answer(provider: Provider, stream: bool) -> None:
    """Text, end, model, tokens and the provider's id come through."""
    events = await events_of(provider, a_call(model="good", stream=stream))
    assert events[:-1] == ([Text(piece) for piece in PIECES] if stream else [])
    assert events[-1] == Answered(
        text=ANSWER, finish_reason="stop", model="served-model", usage=USAGE, provider_request_id=REQUEST_ID
    )


async def test_an_answer_that_was_whole_outlives_a_reset(provider: Provider) -> None:
    """After its finish_reason nothing is missing but the accounts: failing it would mean paying twice."""
    answer = await answer_of(provider, a_call(model="good-then-reset", stream=True))
    assert (answer.text, answer.usage) == (ANSWER, None)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cut_answer_says_what_it_cost(provider: Provider, stream: bool) -> None:
    """Tokens that were reported for a failed call are kept, and the remedy is named."""
    failed = await failure_of(provider, a_call(model="cut-at-the-limit", stream=stream))
    assert failed.usage == USAGE
    assert "max_tokens" in (failed.problem.remedy or "")


async def test_pieces_before_a_failure_are_handed_on(provider: Provider) -> None:
    """What came before the stream broke was seen, and the failure follows it."""
    *pieces, last = await events_of(provider, a_call(model="reset-mid-stream", stream=True))
    assert pieces == [Text(piece) for piece in PIECES]
    assert isinstance(last, Failed)


async def test_retry_after_in_seconds(provider: Provider) -> None:
    """The provider's own wait is in the problem."""
    failed = await failure_of(provider, a_call(model="rate-limited-seconds"))
    assert failed.problem.retry_after_seconds == 7


async def test_retry_after_as_a_date(provider: Provider) -> None:
    """A date is turned into seconds from now."""
    failed = await failure_of(provider, a_call(model="rate-limited-date"))
    assert (failed.problem.retry_after_seconds or 0) > 365 * 24 * 3600


async def test_without_retry_after_none_is_made_up(provider: Provider) -> None:
    """How long to wait is then the pipeline's decision."""
    assert (await failure_of(provider, a_call(model="rate-limited"))).problem.retry_after_seconds is None


async def test_an_http_failure_carries_its_facts(provider: Provider) -> None:
    """Status, code and the provider's id and words stand in their own fields."""
    failed = await failure_of(provider, a_call(model="context-length"))
    problem = failed.problem
    assert (problem.http_status, problem.provider_code) == (400, "context_length_exceeded")
    assert problem.message == "HTTP 400: Too long"
    assert failed.provider_request_id == REQUEST_ID


@pytest.mark.parametrize(("case", "said"), [("echo-prompt", "HTTP 400"), ("echo-key", "HTTP 403")])
async def test_an_echo_of_prompt_or_key_stays_out_of_the_message(provider: Provider, case: str, said: str) -> None:
    """A server that quotes the request in its error puts neither the prompt nor the key into our records."""
    failed = await failure_of(provider, a_call(model=case))
    assert failed.problem.message == said


async def test_a_closed_port_costs_nothing() -> None:
    """A refused connection is worth a retry and cannot be on the bill."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        provider = provider_at(f"http://127.0.0.1:{reserved.getsockname()[1]}/v1")
        failed = await failure_of(provider, a_call())
        await provider.close()
    assert (failed.problem.category, failed.problem.retryable) == (F.CONNECTION, True)
    assert not failed.possibly_billed


async def test_a_connection_that_never_comes_costs_nothing() -> None:
    """A server whose queue is full lets the connect limit run out, before anything was sent."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(address)
        provider = provider_at(f"http://127.0.0.1:{address[1]}/v1", timeouts=IMPATIENT)
        failed = await failure_of(provider, a_call())
        await provider.close()
        for client in waiting:
            client.close()
    assert failed.problem.category is F.TIMEOUT_CONNECT
    assert not failed.possibly_billed


@pytest.mark.parametrize(("case", "stream"), [("silence", False), ("silence", True), ("stall", True)])
async def test_cancelling_hangs_up(server: FaultServer, case: str, stream: bool) -> None:
    """A cancelled call closes its connection at once, whether it waits for headers or for the next piece."""
    provider = provider_at(server.base_url)
    async with asyncio.timeout(30):
        task = asyncio.create_task(events_of(provider, a_call(model=case, stream=stream)))
        exchange = await server.exchange()
        assert not exchange.hung_up.is_set()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await exchange.hung_up.wait()
    await provider.close()


async def test_leaving_a_stream_early_hangs_up(server: FaultServer) -> None:
    """Leaving the block after the first piece closes the connection, without waiting for the garbage collector."""
    provider = provider_at(server.base_url)
    gc.disable()
    try:
        async with asyncio.timeout(20):
            async with provider.open(a_call(model="stall", stream=True)) as events:
                assert await anext(events) == Text(PIECES[0])
                exchange = await server.exchange()
                assert not exchange.hung_up.is_set()
            await exchange.hung_up.wait()
    finally:
        gc.enable()
    await provider.close()


async def test_many_calls_at_once_do_not_mix(provider: Provider) -> None:
    """Good and bad calls of one provider end each in its own way."""
    cases = ["good", "status-500", "reset-mid-stream", "refused"] * 10
    ended = await asyncio.gather(*(events_of(provider, a_call(model=case, stream=True)) for case in cases))
    assert [isinstance(events[-1], Answered) for events in ended] == [case == "good" for case in cases]
