"""What workers share of a provider, as bytes: it comes back as it was, and what cannot be read is as good as new."""

from hypothesis import given
from hypothesis import strategies as st

from policy.breaker import PROBE_LEASE_MS, Breaker, ProbeLease
from policy.budget import SPENDING, Spending
from policy.limits import LIMIT_STATE, Holder, LimitState, Waiter
from policy.provider_state import (
    FORGOTTEN_AFTER_MS,
    LONGEST_BLOCK_MS,
    MAX_MODELS,
    PROVIDER_STATE,
    WHOLE,
    ProviderState,
)
from policy.rate import Rate
from policy.rules import BreakerRules
from schemas.vocabulary import BreakerState, FailureCategory

NOW = 1_795_000_000_000
RULES = BreakerRules()
NUMBERS = st.integers(0, 2**53)
BREAKERS = st.builds(
    Breaker,
    state=st.sampled_from([BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN]),
    era=NUMBERS,
    since_ms=NUMBERS,
    reason=st.none() | st.sampled_from(FailureCategory),
    in_a_row=NUMBERS,
    slots=st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS)).map(tuple),
    opened=NUMBERS,
    retry_at_ms=NUMBERS,
    successes=NUMBERS,
    probe=st.none() | st.builds(ProbeLease, st.text(), NUMBERS),
)
RATES = st.builds(
    Rate,
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    NUMBERS,
    st.lists(st.tuples(NUMBERS, NUMBERS)).map(tuple),
)


@given(
    st.builds(ProviderState, breakers=st.dictionaries(st.text(), BREAKERS), blocked=st.dictionaries(st.text(), NUMBERS))
)
def test_a_providers_state_comes_back(state: ProviderState) -> None:
    """And gives the same bytes again, for bytes that differ are written."""
    stored = PROVIDER_STATE.packed(state)
    assert PROVIDER_STATE.unpacked(stored) == state
    assert PROVIDER_STATE.packed(PROVIDER_STATE.unpacked(stored)) == stored


@given(
    st.builds(
        LimitState,
        requests=RATES,
        tokens=RATES,
        waiting=st.lists(st.builds(Waiter, st.text(), NUMBERS, NUMBERS, NUMBERS)).map(tuple),
        holders=st.dictionaries(st.text(), st.builds(Holder, NUMBERS, NUMBERS, NUMBERS)),
    )
)
def test_a_limits_state_comes_back(state: LimitState) -> None:
    """As above."""
    stored = LIMIT_STATE.packed(state)
    assert LIMIT_STATE.unpacked(stored) == state
    assert LIMIT_STATE.packed(LIMIT_STATE.unpacked(stored)) == stored


@given(NUMBERS, st.floats(0, 1e12))
def test_spending_comes_back(day: int, usd: float) -> None:
    """As above, to the last digit."""
    assert SPENDING.unpacked(SPENDING.packed(Spending(day, usd))) == Spending(day, usd)


@given(st.binary() | st.sampled_from([b"null", b"[]", b'{"breakers":7}', b'{"breakers":{"":{"state":"ajar"}}}']))
def test_what_cannot_be_read_is_fresh(stored: bytes) -> None:
    """Never an error: better one call too many than a lane that stands still."""
    assert isinstance(PROVIDER_STATE.unpacked(stored), ProviderState)
    assert isinstance(LIMIT_STATE.unpacked(stored), LimitState)
    assert isinstance(SPENDING.unpacked(stored), Spending)
    assert PROVIDER_STATE.unpacked(b"\xff") == ProviderState()
    assert PROVIDER_STATE.unpacked(b'{"breakers":{"":{"state":"ajar"}}}') == ProviderState()


def test_a_fresh_state_is_not_stored() -> None:
    """There is nothing to keep."""
    assert PROVIDER_STATE.packed(ProviderState()) is None
    assert PROVIDER_STATE.unpacked(None) == ProviderState()


@given(st.lists(st.tuples(st.sampled_from(["", "m", "n"]), st.integers(0, 10**9)), max_size=20))
def test_a_not_before_time_is_never_shortened(blocks: list[tuple[str, int]]) -> None:
    """Whatever is said later, and for whichever model."""
    state = ProviderState()
    for model, seconds in blocks:
        before = state
        state = state.with_block(model, NOW + seconds * 1000, now_ms=NOW)
        assert state.blocked_until_ms(model) >= NOW + min(seconds * 1000, LONGEST_BLOCK_MS)
        assert all(state.blocked_until_ms(name) >= before.blocked_until_ms(name) for name in ["", "m", "n"])


def test_a_block_of_the_whole_provider_holds_for_each_model() -> None:
    """And one of a model holds for that model alone."""
    state = ProviderState().with_block("m", NOW + 5, now_ms=NOW)
    assert (state.blocked_until_ms("m"), state.blocked_until_ms("n")) == (NOW + 5, 0)
    assert state.with_block(WHOLE, NOW + 3, now_ms=NOW).blocked_until_ms("n") == NOW + 3


def test_models_that_somebody_makes_up_do_not_fill_it() -> None:
    """Beyond a bound what is said of a model counts for the provider."""
    state = ProviderState()
    for number in range(MAX_MODELS + 5):
        state = state.with_block(f"m{number}", NOW + 1_000, now_ms=NOW)
    assert len(state.blocked) == MAX_MODELS + 1
    assert state.blocked_until_ms("another") == NOW + 1_000


def test_what_is_over_is_tidied_away() -> None:
    """Blocks in the past, and breakers that have been well for long; not those that are open."""
    open_one = Breaker(state=BreakerState.OPEN, since_ms=1, retry_at_ms=2)
    probed = Breaker(state=BreakerState.HALF_OPEN, probe=ProbeLease("w", NOW - PROBE_LEASE_MS))
    quiet = Breaker(era=3, since_ms=NOW - FORGOTTEN_AFTER_MS)
    lately = Breaker(era=3, since_ms=NOW - FORGOTTEN_AFTER_MS + 1)
    state = ProviderState(
        breakers={"a": open_one, "b": probed, "c": quiet, "d": lately}, blocked={"": NOW, "m": NOW + 1}
    )
    assert state.tidied(now_ms=NOW, rules=RULES) == ProviderState(
        breakers={"a": open_one, "b": probed, "d": lately}, blocked={"m": NOW + 1}
    )
