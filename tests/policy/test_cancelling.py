"""Which requests a cancellation is about, and where a request goes whose provider is not called at present."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.cancelling import CLOCKS_DIFFER, Cancellations, as_written, concerns
from policy.catalogue import Catalogue, ProviderEntry
from policy.routing import route
from policy.summary import Identity
from schemas import LLMRequest
from schemas.attempt import Problem
from schemas.command import Command
from schemas.task import RoutingDecision
from schemas.vocabulary import FailureCategory, ProcessingMode

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
names = st.sampled_from(["a", "b"])
some_names = st.none() | names


@given(
    request_id=some_names,
    tenant_id=some_names,
    correlation_id=some_names,
    own_id=names,
    own_tenant=names,
    own_correlation=some_names,
    age_seconds=st.none() | st.integers(-2, 2),
)
def test_all_that_a_command_names_must_fit_and_nothing_sent_later_does(
    *,
    request_id: str | None,
    tenant_id: str | None,
    correlation_id: str | None,
    own_id: str,
    own_tenant: str,
    own_correlation: str | None,
    age_seconds: int | None,
) -> None:
    if request_id is tenant_id is correlation_id is None:
        return
    command = Command(
        command_id="c", issued_at=NOW, request_id=request_id, tenant_id=tenant_id, correlation_id=correlation_id
    )
    who = Identity(request_id=own_id, tenant_id=own_tenant, correlation_id=own_correlation)
    submitted_at = None if age_seconds is None else NOW - timedelta(seconds=age_seconds)
    expected = (
        (request_id is None or request_id == own_id)
        and (tenant_id is None or tenant_id == own_tenant)
        and (correlation_id is None or correlation_id == own_correlation)
        and (age_seconds is None or age_seconds >= 0)
    )
    assert concerns(command, who, submitted_at=submitted_at) is expected


@given(seconds=st.floats(-1e6, 1e6))
def test_a_command_is_issued_no_later_than_its_record_allows(seconds: float) -> None:
    """By somebody whose clock is a little ahead; nobody who says that he is from next year is believed."""
    sent = Command(command_id="c", issued_at=NOW + timedelta(seconds=seconds), request_id="r")
    believed = as_written(sent, NOW)
    assert believed.issued_at == min(sent.issued_at, NOW + CLOCKS_DIFFER)
    assert believed == sent or seconds > CLOCKS_DIFFER.total_seconds()


requests = st.builds(Identity, request_id=names, tenant_id=names, correlation_id=some_names)
moments = st.integers(-2, 2).map(lambda seconds: NOW + timedelta(seconds=seconds))
commands = (
    st.tuples(some_names, some_names, some_names, moments)
    .filter(lambda made: any(made[:3]))
    .map(
        lambda made: Command(
            command_id="c", request_id=made[0], tenant_id=made[1], correlation_id=made[2], issued_at=made[3]
        )
    )
)


@given(st.lists(commands, max_size=8), requests, st.none() | moments)
def test_many_commands_concern_what_one_of_them_does(
    heard: list[Command], who: Identity, submitted_at: datetime | None
) -> None:
    cancellations = Cancellations(most=100)
    for command in heard:
        cancellations.note(command)
    expected = any(concerns(command, who, submitted_at=submitted_at) for command in heard)
    assert cancellations.concern(who, submitted_at=submitted_at) is expected


def test_of_more_commands_than_are_kept_the_newest_are() -> None:
    cancellations = Cancellations(most=2)
    for request_id in ("r-1", "r-2", "r-1", "r-3"):
        cancellations.note(Command(command_id="c", issued_at=NOW, request_id=request_id))
    kept = [cancellations.concern(Identity(request_id=f"r-{n}"), submitted_at=NOW) for n in (1, 2, 3)]
    assert kept == [True, False, True]


def test_a_command_that_names_nothing_is_none() -> None:
    """It would cancel everything."""
    with pytest.raises(ValueError, match="name a request_id"):
        Command(command_id="c", issued_at=NOW)


ENTRY = ProviderEntry(type="simulated", models=["m"], local=True)
CATALOGUE = Catalogue(providers={"a": ENTRY, "b": ENTRY, "cloud": ENTRY.model_copy(update={"local": False})})


def request(**fields: object) -> LLMRequest:
    return LLMRequest.model_validate({"request_id": "r", "messages": [{"role": "user", "content": "x"}], **fields})


def routed(sent: LLMRequest, *unavailable: str) -> str | FailureCategory:
    decision = route(sent, CATALOGUE, unavailable=frozenset(unavailable))
    return decision.provider if isinstance(decision, RoutingDecision) else decision.category


@pytest.mark.parametrize("model", [None, "m"])
def test_a_request_that_may_move_goes_to_the_next_provider_that_is_called(model: str | None) -> None:
    assert routed(request(allow_failover=True, model=model), "a") == "b"
    assert routed(request(allow_failover=True, model=model), "a", "b") == "cloud"


@pytest.mark.parametrize("model", [None, "m"])
def test_a_request_that_may_not_move_waits_for_its_provider(model: str | None) -> None:
    assert routed(request(model=model), "a") == "a"
    assert routed(request(model=model, provider="b", allow_failover=True), "b") == "b"


def test_where_none_is_called_a_request_waits_for_the_first() -> None:
    assert routed(request(allow_failover=True), "a", "b", "cloud") == "a"


def test_a_constraint_is_never_traded_for_a_provider_that_is_called() -> None:
    """Content that may not leave waits for the local providers."""
    assert routed(request(allow_failover=True, constraints={"sensitivity": "critical"}), "a", "b") == "a"
    only_a = request(allow_failover=True, constraints={"allowed_providers": ["a"]})
    assert routed(only_a, "a") == "a"


@pytest.mark.parametrize("fields", [{}, {"provider": "a"}, {"model": "m"}])
def test_an_immediate_request_is_turned_away_with_a_time_to_come_back(fields: dict[str, str]) -> None:
    sent = request(processing_mode=ProcessingMode.IMMEDIATE, **fields)
    decision = route(sent, CATALOGUE, unavailable=frozenset({"a"}))
    assert isinstance(decision, Problem)
    assert decision.category is FailureCategory.PROVIDER_UNAVAILABLE
    assert decision.retry_after_seconds


def test_an_immediate_request_that_may_move_is_called_elsewhere() -> None:
    assert routed(request(processing_mode=ProcessingMode.IMMEDIATE, allow_failover=True), "a") == "b"
