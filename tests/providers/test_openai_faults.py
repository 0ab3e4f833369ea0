"""What only servers of chat completions say when they fail. What holds for every provider is in `contract/`."""

import json
from typing import Any

import pytest

from connectors.providers.base import CallEvent, Failed
from connectors.providers.registry import build_provider
from policy.catalogue import ProviderEntry
from schemas.vocabulary import FailureCategory as F
from tests.providers.calls import a_call, events_of
from tests.support.fault_cases import CASES
from tests.support.fault_server import Case, Exchange, FaultServer


async def come_of(behaviour: Case, *, stream: bool = False) -> Failed:
    """How a call to a server fails that behaves so."""
    async with FaultServer({"m": behaviour}) as server:
        entry = ProviderEntry(type="openai", models=["m"], base_url=server.base_url)
        provider = build_provider("remote", entry, environ={})
        last: CallEvent = (await events_of(provider, a_call(model="m", stream=stream)))[-1]
        await provider.close()
    assert isinstance(last, Failed)
    return last


def error_event(error: dict[str, Any]) -> Case:
    async def break_off(exchange: Exchange) -> None:
        await exchange.tell()
        await exchange.raw(exchange.wire.event(json.dumps({"error": error})))
        await exchange.end_stream()

    return break_off


@pytest.mark.parametrize("stream", [False, True])
async def test_vllm_says_in_words_that_a_prompt_is_too_long(stream: bool) -> None:
    """Its code is no more than the status."""
    failed = await come_of(CASES["context-length-of-vllm"], stream=stream)
    assert (failed.problem.category, failed.possibly_billed) == (F.CONTEXT_LENGTH, False)


@pytest.mark.parametrize(
    ("code", "category"), [(429, F.RATE_LIMITED), ("503", F.OVERLOADED), (418, F.INVALID_REQUEST), (7, F.SERVER_ERROR)]
)
async def test_a_status_may_come_as_the_code_of_an_error_event(code: object, category: F) -> None:
    """Gateways put it there."""
    failed = await come_of(error_event({"message": "No.", "code": code}), stream=True)
    assert (failed.problem.category, failed.problem.provider_code) == (category, str(code))


@pytest.mark.parametrize("kind", ["invalid_request_error", "BadRequestError"])
async def test_an_error_event_about_the_request_is_not_worth_a_retry(kind: str) -> None:
    """There is no status to go by, but the type."""
    failed = await come_of(error_event({"message": "No.", "type": kind, "code": None}), stream=True)
    assert (failed.problem.category, failed.problem.retryable) == (F.INVALID_REQUEST, False)


async def test_the_server_s_words_and_id_are_kept() -> None:
    """Status, code, words and id stand in their own fields."""
    failed = await come_of(CASES["context-length"])
    assert (failed.problem.http_status, failed.problem.provider_code) == (400, "context_length_exceeded")
    assert failed.problem.message == "HTTP 400: Too long"
    assert failed.provider_request_id == "req_fault_server"
