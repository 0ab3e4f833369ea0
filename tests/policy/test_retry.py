"""What follows a failed call, for any history, catalogue, clock and chance; and which way a wait goes."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from policy.catalogue import Catalogue, ProviderEntry
from policy.failures import TRAITS, problem
from policy.retry import FailOver, GiveUp, NextStep, RetryLater, RetryPolicy, after_failure, delay_for, retry_at
from policy.routing import LOCAL_ONLY
from schemas import LaneTask, LLMRequest
from schemas.attempt import Attempt, Problem
from schemas.task import RoutingDecision
from schemas.topics import RETRY_DELAYS_SECONDS
from schemas.vocabulary import AttemptOutcome, FailureCategory, ProcessingMode, Sensitivity

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
NAMES = ["a", "b", "c", "d"]
MODELS = ["m-1", "m-2"]
EPSILON_SECONDS = 1e-6

chances = st.floats(min_value=0, max_value=1, exclude_max=True)
waits = st.floats(min_value=0, max_value=100_000)
policies = st.builds(
    RetryPolicy,
    max_retries=st.integers(0, 5),
    base_seconds=st.floats(0, 30),
    factor=st.floats(1, 10),
    max_seconds=st.floats(1, 3600),
)
entries = st.builds(
    ProviderEntry,
    type=st.just("simulated"),
    models=st.lists(st.sampled_from(MODELS), min_size=1, unique=True),
    local=st.booleans(),
)
catalogues = st.dictionaries(st.sampled_from(NAMES), entries, min_size=1).map(lambda p: Catalogue(providers=p))
retryable = st.sampled_from([category for category, traits in TRAITS.items() if traits.retryable])


@st.composite
def requests(draw: st.DrawFn) -> LLMRequest:
    return LLMRequest.model_validate(
        {
            "request_id": "r",
            "messages": [{"role": "user", "content": "x"}],
            "provider": draw(st.sampled_from([None, None, "a"])),
            "model": draw(st.sampled_from([None, "m-1", "m-2"])),
            "allow_failover": draw(st.booleans()),
            "processing_mode": draw(st.sampled_from(ProcessingMode)),
            "constraints": {
                "allowed_providers": draw(st.lists(st.sampled_from(NAMES), unique=True)),
                "sensitivity": draw(st.sampled_from(Sensitivity)),
            },
        }
    )


def attempt(number: int, provider: str, outcome: AttemptOutcome = AttemptOutcome.FAILED) -> Attempt:
    return Attempt(
        request_id="r",
        attempt=number,
        provider=provider,
        model="m-1",
        outcome=outcome,
        started_at=NOW,
        ended_at=NOW,
        duration_ms=0,
        worker="w",
    )


@st.composite
def histories(draw: st.DrawFn) -> list[Attempt]:
    """Calls of which the last one failed, lost ones among them."""
    outcomes = draw(st.lists(st.sampled_from([AttemptOutcome.FAILED, AttemptOutcome.LOST]), max_size=6))
    providers = [draw(st.sampled_from(NAMES)) for _ in range(len(outcomes) + 1)]
    return [
        attempt(n + 1, p, o) for n, (p, o) in enumerate(zip(providers, [*outcomes, AttemptOutcome.FAILED], strict=True))
    ]


def task(request: LLMRequest, provider: str = "a", *, seconds_left: float = 14_400) -> LaneTask:
    return LaneTask(
        request=request,
        decision=RoutingDecision(provider=provider, model="m-1", reason="test"),
        submitted_at=NOW,
        queued_at=NOW,
        deadline_at=NOW + timedelta(seconds=seconds_left),
    )


def known(attempts: list[Attempt]) -> int:
    return len([each for each in attempts if each.outcome is not AttemptOutcome.LOST])


def decide(
    request: LLMRequest,
    attempts: list[Attempt],
    found: Problem,
    *,
    catalogue: Catalogue,
    policy: RetryPolicy,
    seconds_left: float = 14_400,
    chance: float = 0.5,
) -> NextStep:
    return after_failure(
        task(request, attempts[-1].provider, seconds_left=seconds_left),
        attempts,
        found,
        catalogue=catalogue,
        policy=policy,
        now=NOW,
        chance=chance,
    )


@given(
    request=requests(),
    attempts=histories(),
    catalogue=catalogues,
    policy=policies,
    chance=chances,
    seconds_left=st.floats(0, 20_000),
    retry_after=st.none() | waits,
    category=retryable,
)
def test_whatever_happened_the_next_step_keeps_all_rules(
    *,
    request: LLMRequest,
    attempts: list[Attempt],
    catalogue: Catalogue,
    policy: RetryPolicy,
    chance: float,
    seconds_left: float,
    retry_after: float | None,
    category: FailureCategory,
) -> None:
    found = problem(category, "x", retry_after_seconds=retry_after)
    step = decide(
        request, attempts, found, catalogue=catalogue, policy=policy, seconds_left=seconds_left, chance=chance
    )
    if not isinstance(step, GiveUp):
        # The call to come is one more than those that were made for certain.
        assert known(attempts) + 1 <= policy.max_retries + 1
    match step:
        case RetryLater(at):
            assert request.processing_mode is not ProcessingMode.IMMEDIATE
            assert NOW <= at < task(request, seconds_left=seconds_left).deadline_at
            if retry_after is not None:
                assert (at - NOW).total_seconds() >= retry_after - EPSILON_SECONDS
        case FailOver(decision):
            assert request.provider is None
            assert request.allow_failover
            assert decision.provider not in {each.provider for each in attempts}
            entry = catalogue.providers[decision.provider]
            assert entry.serves(decision.model)
            assert request.model in (None, decision.model)
            allowed = request.constraints.allowed_providers
            assert not allowed or decision.provider in allowed
            assert entry.local or request.constraints.sensitivity not in LOCAL_ONLY
        case GiveUp(why):
            assert why


@given(requests(), histories(), catalogues, policies)
def test_what_does_not_pass_is_never_called_again(
    request: LLMRequest, attempts: list[Attempt], catalogue: Catalogue, policy: RetryPolicy
) -> None:
    found = problem(FailureCategory.INVALID_REQUEST, "x")
    assert decide(request, attempts, found, catalogue=catalogue, policy=policy) == GiveUp()


@given(st.integers(0, 6), st.integers(1, 6))
def test_calls_whose_outcome_was_lost_do_not_count(lost: int, failed: int) -> None:
    attempts = [attempt(n + 1, "a", AttemptOutcome.LOST) for n in range(lost)]
    attempts += [attempt(lost + n + 1, "a") for n in range(failed)]
    request = LLMRequest.model_validate({"request_id": "r", "messages": [{"role": "user", "content": "x"}]})
    alone = Catalogue(providers={"a": ProviderEntry(type="simulated", models=["m-1"])})
    found = problem(FailureCategory.OVERLOADED, "x")
    step = decide(request, attempts, found, catalogue=alone, policy=RetryPolicy(max_retries=3))
    assert isinstance(step, RetryLater if failed <= 3 else GiveUp)


def test_the_next_provider_is_the_first_of_the_catalogue_that_was_not_tried() -> None:
    entry = ProviderEntry(type="simulated", models=["m-1"])
    catalogue = Catalogue(providers={"b": entry, "a": entry, "c": entry})
    request = LLMRequest.model_validate(
        {"request_id": "r", "messages": [{"role": "user", "content": "x"}], "allow_failover": True}
    )
    found = problem(FailureCategory.OVERLOADED, "x")
    step = decide(request, [attempt(1, "b")], found, catalogue=catalogue, policy=RetryPolicy())
    assert step == FailOver(RoutingDecision(provider="a", model="m-1", reason="failover"))


@given(policies, st.integers(0, 5), chances)
def test_a_wait_is_drawn_from_zero_to_a_bound_that_grows(policy: RetryPolicy, retries: int, chance: float) -> None:
    def wait(retries: int, chance: float) -> float:
        at = retry_at(policy, retries=retries, now=NOW, chance=chance, retry_after=None)
        return (at - NOW).total_seconds()

    assert 0 <= wait(retries, chance) <= policy.max_seconds + 0.001 + EPSILON_SECONDS
    assert wait(retries, chance) <= wait(retries + 1, chance) + EPSILON_SECONDS
    assert wait(retries, 0.0) == 0
    assert wait(0, chance) <= policy.base_seconds + 0.001 + EPSILON_SECONDS


@given(policies, st.integers(0, 5), chances, waits, st.integers(0, 999_999))
def test_what_the_provider_asks_for_is_prolonged_a_little_and_never_shortened(
    policy: RetryPolicy, retries: int, chance: float, retry_after: float, microsecond: int
) -> None:
    now = NOW.replace(microsecond=microsecond)
    at = retry_at(policy, retries=retries, now=now, chance=chance, retry_after=retry_after)
    assert now + timedelta(seconds=retry_after) <= at
    assert (at - now).total_seconds() <= retry_after + 0.1 * policy.max_seconds + 0.001 + EPSILON_SECONDS
    # Records carry milliseconds: nothing is cut off where it is written.
    assert at.microsecond % 1000 == 0


@given(st.lists(st.integers(1, 3600), min_size=1, max_size=6, unique=True), st.floats(0.001, 50_000))
def test_a_wait_through_delay_topics_makes_progress_and_is_never_early(delays: list[int], whole: float) -> None:
    """A topic lets a task go after its delay, or when its whole wait is over."""
    remaining, ways = whole, 0
    while remaining > 0:
        delay = delay_for(delays, remaining_seconds=remaining)
        assert delay in delays
        # None is longer than what is left, but the shortest, which lets it go when due.
        assert delay <= remaining or delay == min(delays)
        assert not any(delay < other <= remaining for other in delays)
        remaining -= min(delay, remaining)
        ways += 1
    assert ways <= whole / min(delays) + 1


@given(st.floats(0.001, 50_000))
def test_the_default_topics_are_passed_through_a_few_times(whole: float) -> None:
    remaining, ways = whole, 0
    while remaining > 0:
        remaining -= delay_for(RETRY_DELAYS_SECONDS, remaining_seconds=remaining)
        ways += 1
    assert ways <= whole // 600 + 4 + 3 + 5 + 5
