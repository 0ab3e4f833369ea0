"""Every provider ends every case as the table says: the same category, verdict on retries, and word on the bill."""

import asyncio
import importlib.util
from datetime import UTC, datetime, timedelta

import pytest

from connectors.providers.base import Answered, Failed, Text
from connectors.providers.registry import PROVIDER_TYPES
from tests.providers.calls import QUESTION, a_call, events_of, failure_of
from tests.providers.contract.adapters import ADAPTERS, BY_TYPE, EXEMPT, KEY, Adapter
from tests.providers.contract.cases import BY_NAME, CASES, Case, Where
from tests.providers.contract.columns import Columns
from tests.providers.contract.trial import ESSAYS, Trial, seen
from tests.support.fault_cases import CASES as BEHAVIOURS
from tests.support.fault_wire import ANSWER, PIECES, SERVED_MODEL, USAGE


def _skipped(adapter: Adapter) -> list[pytest.MarkDecorator]:
    missing = [module for module in adapter.needs if importlib.util.find_spec(module) is None]
    return [pytest.mark.skip(reason=f"not installed: {', '.join(missing)}")] if missing else []


MODES = {"whole": False, "streamed": True}
CELLS = [
    pytest.param(adapter, case, streamed, id=f"{adapter.type}-{case.name}-{mode}", marks=_skipped(adapter))
    for adapter in ADAPTERS
    for case in CASES
    for mode, streamed in MODES.items()
    if adapter.expected(case, streamed=streamed)
]
BESIDES = {"echo-prompt", "echo-key", "list-of-models", "context-length-of-vllm"}


@pytest.mark.filterwarnings("ignore:BRAND_NEW_REASON:UserWarning:google.genai")
@pytest.mark.parametrize(("adapter", "case", "streamed"), CELLS)
async def test_a_call_ends_as_the_table_says(columns: Columns, adapter: Adapter, case: Case, streamed: bool) -> None:
    """One request, one outcome: never an exception, never a request of the SDK's own, nothing given away."""
    outcome, requests = await columns.cell(adapter, case, streamed=streamed)
    assert seen(outcome) == adapter.expected(case, streamed=streamed)
    assert requests == 1
    told = repr(outcome)
    assert KEY not in told
    assert not any(text in told for text in (QUESTION, *ESSAYS))


def test_every_type_of_provider_has_a_column() -> None:
    """No provider is registered and then not held to the contract."""
    assert set(PROVIDER_TYPES) == set(BY_TYPE) | set(EXEMPT)


@pytest.mark.parametrize("adapter", ADAPTERS, ids=BY_TYPE)
def test_what_an_adapter_says_it_says_of_cases(adapter: Adapter) -> None:
    """A misspelt name would make a difference disappear, and each case is either tried or said to be impossible."""
    assert {*adapter.cannot, *adapter.differs, *adapter.calls} <= set(BY_NAME)
    assert not adapter.cannot.keys() & (adapter.differs.keys() | adapter.calls.keys())
    if adapter.wire is None:
        assert adapter.cannot.keys() | adapter.calls.keys() == set(BY_NAME)


def test_every_behaviour_of_the_server_has_a_row() -> None:
    """No case is written and then forgotten, and none is expected that the server does not know."""
    rows = {case.name for case in CASES if case.where is Where.SERVER}
    assert rows | BESIDES == set(BEHAVIOURS)


@pytest.mark.parametrize("streamed", MODES.values(), ids=MODES)
async def test_a_good_answer_is_told_in_full(tried: Trial, streamed: bool) -> None:
    """Text, end, model, tokens (in our terms, whatever the API's) and the provider's id come through."""
    *pieces, answer = await events_of(tried.provider, a_call(model="good", stream=streamed))
    assert pieces == ([Text(piece) for piece in PIECES] if streamed else [])
    assert isinstance(answer, Answered)
    assert (answer.text, answer.finish_reason, answer.model, answer.usage) == (ANSWER, "stop", SERVED_MODEL, USAGE)
    assert tried.adapter.wire
    assert answer.provider_request_id == tried.adapter.wire.call_id


async def test_pieces_before_a_failure_are_handed_on(tried: Trial) -> None:
    """What came before the stream broke was seen, and the failure follows it."""
    *pieces, last = await events_of(tried.provider, a_call(model="reset-mid-stream", stream=True))
    assert pieces == [Text(piece) for piece in PIECES]
    assert isinstance(last, Failed)


@pytest.mark.parametrize("streamed", MODES.values(), ids=MODES)
async def test_a_cut_answer_says_what_it_cost(tried: Trial, streamed: bool) -> None:
    """Tokens that were reported for a failed call are kept, and the remedy is named."""
    failed = await failure_of(tried.provider, a_call(model="cut-at-the-limit", stream=streamed))
    assert failed.usage == USAGE
    assert "max_tokens" in (failed.problem.remedy or "")


async def test_retry_after_is_read(tried: Trial) -> None:
    """In seconds, as a date, and not made up where it is not said."""
    seconds = await failure_of(tried.provider, a_call(model="rate-limited-seconds"))
    date = await failure_of(tried.provider, a_call(model="rate-limited-date"))
    none = await failure_of(tried.provider, a_call(model="rate-limited"))
    assert seconds.problem.retry_after_seconds == 7
    until_then = datetime(2100, 12, 31, 23, 59, 59, tzinfo=UTC) - datetime.now(UTC)
    waits = timedelta(seconds=date.problem.retry_after_seconds or 0)
    assert abs(waits - until_then) < timedelta(minutes=5)
    assert none.problem.retry_after_seconds is None


async def test_a_failure_with_a_status_carries_its_facts(tried: Trial) -> None:
    """Status, the provider's own code, and its words stand in their own fields."""
    failed = await failure_of(tried.provider, a_call(model="unknown-model"))
    problem = failed.problem
    assert problem.http_status == 404
    assert problem.provider_code
    assert problem.message.startswith("HTTP 404: ")
    assert problem.remedy


async def test_many_calls_at_once_do_not_mix(tried: Trial) -> None:
    """Good and bad calls of one provider end each in its own way."""
    cases = ["good", "status-500", "reset-mid-stream", "refused"] * 10
    ended = await asyncio.gather(*(events_of(tried.provider, a_call(model=case, stream=True)) for case in cases))
    assert [isinstance(events[-1], Answered) for events in ended] == [case == "good" for case in cases]
