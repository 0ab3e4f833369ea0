"""When a breaker opens, who may probe, and how it closes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from policy.breaker import (
    PROBE_LEASE_MS,
    WINDOW_SLOTS,
    Breaker,
    Evidence,
    Heard,
    claim_probe,
    end_probe,
    evidence,
    hear,
    settle_in,
)
from policy.failures import speaks_of_provider
from policy.rules import BreakerRules
from schemas.vocabulary import BreakerState, FailureCategory

F = FailureCategory
RULES = BreakerRules()
NOW = 1_795_000_000_000
OPEN_MS = int(RULES.open_seconds * 1000)


def heard(breaker: Breaker, successes: int, failure: F | None = None, *, at: int = NOW) -> Breaker:
    return hear(breaker, Heard(breaker.era, successes, failure), now_ms=at, rules=RULES)


def opened(breaker: Breaker | None = None, *, at: int = NOW) -> Breaker:
    breaker = breaker or Breaker()
    for _ in range(RULES.failures):
        breaker = heard(breaker, 0, F.SERVER_ERROR, at=at)
    assert breaker.state is BreakerState.OPEN
    return breaker


def probed(breaker: Breaker, told: Evidence, *, at: int) -> Breaker:
    breaker, has_it = claim_probe(breaker, "w", now_ms=at)
    assert has_it
    return end_probe(breaker, "w", told, now_ms=at, rules=RULES, failure=F.OVERLOADED)


def test_five_failures_in_a_row_open_it() -> None:
    """Not four, and not five with a success between them."""
    breaker = Breaker()
    for _ in range(4):
        breaker = heard(breaker, 0, F.OVERLOADED)
    assert breaker.state is BreakerState.CLOSED
    assert heard(breaker, 1, F.OVERLOADED).state is BreakerState.CLOSED
    breaker = heard(breaker, 0, F.SERVER_ERROR)
    assert (breaker.state, breaker.reason, breaker.since_ms) == (BreakerState.OPEN, F.SERVER_ERROR, NOW)
    assert breaker.retry_at_ms == NOW + OPEN_MS


def test_half_of_twenty_calls_in_the_window_open_it() -> None:
    """Never more than one in a row, and still too many."""
    breaker = Breaker()
    for _ in range(9):
        breaker = heard(breaker, 1, F.TIMEOUT_TOTAL)
    assert breaker.state is BreakerState.CLOSED, "eighteen calls are too few to judge"
    assert heard(breaker, 1, F.TIMEOUT_TOTAL).state is BreakerState.OPEN
    assert heard(breaker, 4, F.TIMEOUT_TOTAL).state is BreakerState.CLOSED, "10 of 23"


def test_failures_leave_the_window() -> None:
    """What is older than the window no longer counts."""
    breaker = Breaker()
    for _ in range(9):
        breaker = heard(breaker, 1, F.TIMEOUT_TOTAL)
    later = NOW + int(RULES.window_seconds * 1000 * (1 + 1 / WINDOW_SLOTS))
    assert heard(breaker, 1, F.TIMEOUT_TOTAL, at=later).state is BreakerState.CLOSED
    assert settle_in(breaker, now_ms=later, rules=RULES).slots == ()


@given(st.lists(st.sampled_from([F.INVALID_REQUEST, F.CONTENT_FILTER, F.CANCELLED, F.RATE_LIMITED]), max_size=200))
def test_requests_at_fault_never_open_it(failures: list[F]) -> None:
    """However many a tenant sends: 400, filtered, cancelled and 429 say nothing against the provider."""
    for failure in failures:
        assert evidence(failure, speaks_of_provider=speaks_of_provider(failure)) is not Evidence.UNWELL


@pytest.mark.parametrize(
    ("failed_by", "speaks", "told"),
    [
        (None, False, Evidence.WELL),
        (F.SERVER_ERROR, True, Evidence.UNWELL),
        (F.MALFORMED, True, Evidence.UNWELL),
        (F.MALFORMED, False, Evidence.WELL),
        (F.INVALID_REQUEST, False, Evidence.WELL),
        (F.NOT_FOUND, False, Evidence.WELL),
        (F.REFUSAL, False, Evidence.WELL),
        (F.RATE_LIMITED, False, Evidence.NOTHING),
        (F.TRUNCATED, False, Evidence.NOTHING),
        (F.CANCELLED, False, Evidence.NOTHING),
        (F.DEADLINE, False, Evidence.NOTHING),
        (F.UNKNOWN, False, Evidence.NOTHING),
    ],
)
def test_what_a_call_tells_of_its_provider(failed_by: F | None, speaks: bool, told: Evidence) -> None:
    """One that refuses a request by itself is there; one that we did not wait for may or may not be."""
    assert evidence(failed_by, speaks_of_provider=speaks) is told


def test_a_refused_request_ends_a_row_of_failures() -> None:
    """A 400 is an answer."""
    breaker = Breaker()
    for _ in range(2):
        for _ in range(4):
            breaker = heard(breaker, 0, F.OVERLOADED)
        breaker = heard(breaker, 4)
    assert breaker.state is BreakerState.CLOSED


def test_one_probe_after_its_time_and_no_earlier() -> None:
    """The first to ask has it; others wait until it ends, or its lease does."""
    breaker = opened()
    assert claim_probe(breaker, "a", now_ms=NOW + OPEN_MS - 1) == (breaker, False)
    breaker, has_it = claim_probe(breaker, "a", now_ms=NOW + OPEN_MS)
    assert has_it
    assert breaker.state is BreakerState.HALF_OPEN
    assert not claim_probe(breaker, "b", now_ms=NOW + OPEN_MS + PROBE_LEASE_MS - 1)[1]
    assert claim_probe(breaker, "a", now_ms=NOW + OPEN_MS + PROBE_LEASE_MS - 1)[1], "prolonged"
    breaker, has_it = claim_probe(breaker, "b", now_ms=NOW + OPEN_MS + PROBE_LEASE_MS)
    assert has_it, "the first one died"
    assert end_probe(breaker, "a", Evidence.UNWELL, now_ms=NOW, rules=RULES) == breaker, "too late"


def test_three_successes_close_it() -> None:
    """One after the other, and it is as good as new, in its next era."""
    breaker = opened()
    at = NOW + OPEN_MS
    for _ in range(2):
        breaker = probed(breaker, Evidence.WELL, at=at)
        assert breaker.state is BreakerState.HALF_OPEN
    breaker = probed(breaker, Evidence.NOTHING, at=at)
    assert breaker.successes == 2
    assert probed(breaker, Evidence.WELL, at=at) == Breaker(era=1, since_ms=at)


def test_each_failed_probe_doubles_the_time_up_to_the_longest() -> None:
    """60, 120, 240, 480, 600, 600 seconds; and 60 again once it was closed."""
    breaker, at, lengths = opened(), NOW, []
    for _ in range(6):
        lengths.append((breaker.retry_at_ms - at) // 1000)
        at = breaker.retry_at_ms
        breaker = probed(breaker, Evidence.UNWELL, at=at)
        assert breaker.reason is F.OVERLOADED
    assert lengths == [60, 120, 240, 480, 600, 600]
    at = breaker.retry_at_ms
    for _ in range(3):
        breaker = probed(breaker, Evidence.WELL, at=at)
    assert opened(breaker, at=at).retry_at_ms == at + OPEN_MS


def test_calls_of_before_say_nothing_of_today() -> None:
    """A call that hung since before it opened does not open it again, once it was found well."""
    breaker = opened()
    late = [Heard(breaker.era, 0, F.TIMEOUT_TOTAL)] * 50
    for each in late:
        assert hear(breaker, each, now_ms=NOW, rules=RULES) == breaker
    at = breaker.retry_at_ms
    for _ in range(3):
        breaker = probed(breaker, Evidence.WELL, at=at)
    for each in late:
        breaker = hear(breaker, each, now_ms=at, rules=RULES)
    assert breaker.state is BreakerState.CLOSED


class BreakerLife(RuleBasedStateMachine):
    """Any order of calls, probes, deaths and pauses, by three workers."""

    OWNERS = st.sampled_from(["a", "b", "c"])

    def __init__(self) -> None:
        super().__init__()
        self.rules = BreakerRules(failures=3, min_calls=6, window_seconds=30, open_seconds=10, max_open_seconds=40)
        self.now = NOW
        self.breaker = Breaker()
        self.in_a_row = 0
        self.opened_at = 0
        self.probe: tuple[str, int] | None = None
        self.probe_successes = 0

    @rule(milliseconds=st.integers(0, 20_000))
    def pass_time(self, milliseconds: int) -> None:
        self.now += milliseconds
        self.breaker = settle_in(self.breaker, now_ms=self.now, rules=self.rules)

    @rule(successes=st.integers(0, 3), fails=st.booleans(), old=st.booleans())
    def calls_end(self, successes: int, fails: bool, old: bool) -> None:
        before = self.breaker
        era = before.era - 1 if old else before.era
        failure = F.SERVER_ERROR if fails else None
        self.breaker = hear(before, Heard(era, successes, failure), now_ms=self.now, rules=self.rules)
        if before.state is not BreakerState.CLOSED or old:
            assert self.breaker == before
            return
        self.in_a_row = int(fails) if successes else self.in_a_row + int(fails)
        if self.breaker.state is BreakerState.OPEN:
            assert fails, "a success opens nothing"
            self._has_opened()
        else:
            assert self.in_a_row < self.rules.failures

    @rule(owner=OWNERS)
    def ask_for_the_probe(self, owner: str) -> None:
        before = self.breaker
        self.breaker, has_it = claim_probe(before, owner, now_ms=self.now)
        if not has_it:
            assert self.breaker == before
            return
        if before.state is BreakerState.OPEN:
            assert self.now >= self.opened_at + 10_000
            self.probe_successes = 0
        elif self.probe is not None and self.probe[0] != owner:
            assert self.probe[1] <= self.now, "two probes at once"
        self.probe = (owner, self.now + PROBE_LEASE_MS)

    @precondition(lambda self: self.probe is not None)
    @rule(owner=OWNERS, told=st.sampled_from(Evidence))
    def a_probe_ends(self, owner: str, told: Evidence) -> None:
        assert self.probe is not None
        before = self.breaker
        self.breaker = end_probe(before, owner, told, now_ms=self.now, rules=self.rules, failure=F.OVERLOADED)
        if owner != self.probe[0]:
            assert self.breaker == before
            return
        self.probe = None
        self.probe_successes += told is Evidence.WELL
        expected = BreakerState.HALF_OPEN
        if told is Evidence.UNWELL:
            expected = BreakerState.OPEN
        elif self.probe_successes == self.rules.successes:
            expected = BreakerState.CLOSED
            self.in_a_row = 0
        assert self.breaker.state is expected
        if expected is BreakerState.OPEN:
            self._has_opened()

    @invariant()
    def is_bounded(self) -> None:
        assert len(self.breaker.slots) <= WINDOW_SLOTS
        assert self.breaker.retry_at_ms - self.breaker.since_ms <= 40_000 or self.breaker.retry_at_ms == 0

    def _has_opened(self) -> None:
        assert self.breaker.retry_at_ms >= self.now + 10_000
        self.opened_at = self.now
        self.in_a_row = 0
        self.probe = None


TestBreakerLife = BreakerLife.TestCase
