"""Limits that processes share: rates are never exceeded in any minute, slots never at once, and nobody starves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from policy.limits import HOLD_MS, WAIT_MS, Ask, LimitState, divided, fair_shares, lease
from policy.rate import BURST_SECONDS, GRANT_LIFE_MS, MINUTE_MS, Rate, burst, charge, give_back, grant, lower
from policy.rules import LimitRules

NOW = 1_795_000_000_000
PROCESSES = st.sampled_from(["a", "b", "c"])


def most_in_a_minute(spent: list[tuple[int, int]]) -> int:
    """The largest sum of amounts whose times lie within 60 s."""
    most = total = first = 0
    for at, amount in spent:
        total += amount
        while spent[first][0] < at - MINUTE_MS:
            total -= spent[first][1]
            first += 1
        most = max(most, total)
    return most


class RateLife(RuleBasedStateMachine):
    """Grants of any size, spent late or given back: no minute has more than the rate."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.rate = Rate()
        self.spent: list[tuple[int, int]] = []
        self.held: list[tuple[int, int]] = []

    per_minute = 100

    @rule(milliseconds=st.sampled_from([0, 1, 100, 1_999, 2_000, 7_000, 30_000, 58_000, 61_999]))
    def pass_time(self, milliseconds: int) -> None:
        self.now += milliseconds
        # Whoever holds a grant spends it at the last moment that is allowed.
        for ends_at, amount in sorted(self.held):
            if ends_at <= self.now:
                self.spent.append((ends_at, amount))
        self.held = [held for held in self.held if held[0] > self.now]

    @rule(want=st.integers(1, 150), least=st.integers(1, 150), reserved=st.integers(0, 20))
    def ask(self, want: int, least: int, reserved: int) -> None:
        self.rate, amount, retry_ms = grant(
            self.rate, self.per_minute, want=want, least=least, reserved=reserved, now_ms=self.now
        )
        assert (amount > 0) is (retry_ms == 0)
        if amount:
            assert amount >= min(least, self.per_minute)
            self.held.append((self.now + GRANT_LIFE_MS, amount))

    @rule()
    def spend_now(self) -> None:
        self.spent += [(self.now, amount) for _, amount in self.held]
        self.held = []

    @rule()
    def give_one_back(self) -> None:
        if self.held:
            _, amount = self.held.pop()
            self.rate = give_back(self.rate, self.per_minute, amount, now_ms=self.now)

    @rule(remaining=st.integers(0, 50))
    def be_told(self, remaining: int) -> None:
        self.rate = lower(self.rate, self.per_minute, remaining, now_ms=self.now)

    @invariant()
    def keeps_the_rate(self) -> None:
        assert most_in_a_minute(sorted(self.spent)) <= self.per_minute
        assert len(self.rate.granted) <= 33


TestRateLife = RateLife.TestCase


@pytest.mark.parametrize("per_minute", [1, 7, 60, 600, 10_000])
def test_a_rate_is_used_in_full_or_nearly(per_minute: int) -> None:
    """Whoever asks again when it is told to gets at least 90 % of the rate over ten minutes."""
    rate, now, granted = Rate(), NOW, 0
    while now < NOW + 10 * MINUTE_MS:
        rate, amount, retry_ms = grant(rate, per_minute, want=10**9, least=1, reserved=0, now_ms=now)
        granted += amount
        now += retry_ms or 1
    assert granted >= 9 * per_minute


def test_it_is_spread_over_the_minute() -> None:
    """After a pause a few seconds of the rate come at once, and then as much as the rate brings."""
    rate, first, _ = grant(Rate(), 600, want=600, least=1, reserved=0, now_ms=NOW)
    assert first == 10 * BURST_SECONDS == burst(600)
    rate, second, retry_ms = grant(rate, 600, want=600, least=1, reserved=0, now_ms=NOW)
    assert (second, retry_ms) == (0, 101)
    _, third, _ = grant(rate, 600, want=600, least=1, reserved=0, now_ms=NOW + 1_000)
    assert third == 10


def test_more_than_the_rate_passes_alone() -> None:
    """Nothing is too large for ever."""
    rate, amount, _ = grant(Rate(), 100, want=5_000, least=5_000, reserved=0, now_ms=NOW)
    assert amount == 100
    assert grant(rate, 100, want=1, least=1, reserved=0, now_ms=NOW + MINUTE_MS)[1] == 0


def test_what_may_still_be_spent_counts() -> None:
    """A grant that is spent at its last moment is in the minute that begins then."""
    granted_at = NOW + 1_999
    rate, amount, _ = grant(Rate(), 100, want=100, least=100, reserved=0, now_ms=granted_at)
    assert amount == 100
    spent_at = granted_at + GRANT_LIFE_MS - 1
    assert grant(rate, 100, want=1, least=1, reserved=0, now_ms=spent_at + MINUTE_MS)[1] == 0
    assert grant(rate, 100, want=1, least=1, reserved=0, now_ms=spent_at + MINUTE_MS + 2)[1] == 1


def test_what_was_used_beyond_the_estimate_is_paid_off() -> None:
    """The next calls wait for it, though no longer than a minute and what the window adds."""
    rate = charge(Rate(), 600, 10_000, now_ms=NOW)
    later = NOW + MINUTE_MS + 2 * GRANT_LIFE_MS
    assert grant(rate, 600, want=1, least=1, reserved=0, now_ms=NOW + MINUTE_MS)[1] == 0
    assert grant(rate, 600, want=1, least=1, reserved=0, now_ms=later)[1] == 1


@given(st.integers(-10, 10).map(lambda seconds: seconds * 1000))
def test_a_clock_that_is_set_back_gives_nothing_away(jump_ms: int) -> None:
    """And takes nothing away either."""
    rate, amount, _ = grant(Rate(), 60, want=5, least=5, reserved=0, now_ms=NOW)
    assert amount == 5
    rate, amount, _ = grant(rate, 60, want=60, least=1, reserved=0, now_ms=NOW + jump_ms)
    assert amount == max(0, min(5, jump_ms // 1000))


def ask_of(process: str, **wanted: int) -> Ask:
    return Ask(process=process, **wanted)


def test_both_rates_or_neither() -> None:
    """A request without its tokens is left to somebody who has them."""
    rules = LimitRules(requests_per_minute=600, tokens_per_minute=600)
    state, granted = lease(LimitState(), ask_of("a", tokens=50, tokens_least=50), rules, now_ms=NOW)
    assert granted.tokens == 50
    state, granted = lease(state, ask_of("a", requests=5, tokens=50, tokens_least=50), rules, now_ms=NOW)
    assert (granted.requests, granted.tokens) == (0, 0)
    assert granted.retry_ms > 4_000
    assert lease(state, ask_of("a", requests=5), rules, now_ms=NOW)[1].requests == 5


def test_small_calls_do_not_keep_a_large_one_out() -> None:
    """What the first in the queue needs is kept for it; whoever is gone loses the place."""
    rules = LimitRules(tokens_per_minute=6_000)
    state, _ = lease(LimitState(), ask_of("small", tokens=500, tokens_least=500), rules, now_ms=NOW)
    state, granted = lease(state, ask_of("large", tokens=500, tokens_least=500), rules, now_ms=NOW)
    assert granted.tokens == 0
    now = NOW
    while not granted.tokens:
        assert now < NOW + 6_000, "it has waited for longer than it takes to fill"
        now += 100
        state, small = lease(state, ask_of("small", tokens=10, tokens_least=10), rules, now_ms=now)
        assert small.tokens == 0
        state, granted = lease(state, ask_of("large", tokens=500, tokens_least=500), rules, now_ms=now)
    state, _ = lease(state, ask_of("large", tokens=500, tokens_least=500), rules, now_ms=now)
    assert lease(state, ask_of("small", tokens=10, tokens_least=10), rules, now_ms=now + WAIT_MS + 300)[1].tokens == 10


def test_processes_take_turns() -> None:
    """One that asks ten times as often gets hardly more."""
    rules = LimitRules(requests_per_minute=60)
    state, now, got = LimitState(), NOW, {"eager": 0, "patient": 0}
    while now < NOW + 5 * MINUTE_MS:
        for process in ("eager", "patient") if now % 500 == 0 else ("eager",):
            state, granted = lease(state, ask_of(process, requests=1), rules, now_ms=now)
            got[process] += granted.requests
        now += 50
    assert got["patient"] >= 0.8 * got["eager"]
    assert sum(got.values()) >= 270


def test_the_provider_lowers_what_is_left() -> None:
    """Its own count of what remains goes before ours, if it is less."""
    rules = LimitRules(requests_per_minute=600)
    state, granted = lease(LimitState(), ask_of("a", requests=9, requests_remaining=2), rules, now_ms=NOW)
    assert granted.requests == 2
    assert lease(state, ask_of("a", requests=9, requests_remaining=500), rules, now_ms=NOW)[1].requests == 0


class SlotLife(RuleBasedStateMachine):
    """Processes that begin and end calls, ask for slots, and die: never more calls at once than the limit."""

    limit = 5

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.state = LimitState()
        self.in_use = dict.fromkeys("abc", 0)
        self.slots = dict.fromkeys("abc", 0)
        self.lost_at = dict.fromkeys("abc", NOW)

    @rule(process=PROCESSES, wanted=st.integers(0, 8))
    def ask(self, process: str, wanted: int) -> None:
        lasts = self.now < self.lost_at[process]
        kept = max(self.in_use[process], self.slots[process]) if lasts else self.in_use[process]
        asked = ask_of(process, slots_kept=kept, slots_wanted=max(wanted, self.in_use[process]))
        self.state, granted = lease(self.state, asked, LimitRules(concurrency=self.limit), now_ms=self.now)
        self.slots[process], self.lost_at[process] = granted.slots, self.now + HOLD_MS

    @rule(process=PROCESSES)
    def begin(self, process: str) -> None:
        if self.now < self.lost_at[process] and self.in_use[process] < self.slots[process]:
            self.in_use[process] += 1

    @rule(process=PROCESSES)
    def end(self, process: str) -> None:
        self.in_use[process] = max(0, self.in_use[process] - 1)

    @rule(process=PROCESSES)
    def die(self, process: str) -> None:
        self.in_use[process], self.slots[process], self.lost_at[process] = 0, 0, self.now

    @rule(milliseconds=st.integers(0, 4_000))
    def pass_time(self, milliseconds: int) -> None:
        # A process that lives asks again long before it has lost its slots.
        for process in "abc":
            if self.in_use[process] and self.lost_at[process] - self.now <= milliseconds:
                self.ask(process, self.in_use[process])
        self.now += milliseconds

    @invariant()
    def keeps_the_limit(self) -> None:
        assert sum(self.in_use.values()) <= self.limit


TestSlotLife = SlotLife.TestCase


def test_slots_move_to_those_who_want_them() -> None:
    """One process has all; a second comes, and the first gives up half as its calls end."""
    rules = LimitRules(concurrency=10)
    state, first = lease(LimitState(), ask_of("a", slots_wanted=50), rules, now_ms=NOW)
    assert first.slots == 10
    state, second = lease(state, ask_of("b", slots_wanted=50), rules, now_ms=NOW)
    assert second.slots == 0
    state, first = lease(state, ask_of("a", slots_kept=10, slots_wanted=50), rules, now_ms=NOW)
    assert (first.slots, first.slots_held, first.holders) == (5, 10, 2)
    state, _ = lease(state, ask_of("a", slots_kept=7, slots_wanted=50), rules, now_ms=NOW)
    assert lease(state, ask_of("b", slots_wanted=50), rules, now_ms=NOW)[1].slots == 3
    assert lease(state, ask_of("b", slots_wanted=50), rules, now_ms=NOW + HOLD_MS)[1].slots == 10, "the first one died"


@given(st.integers(0, 50), st.dictionaries(st.text(max_size=3), st.integers(0, 20), min_size=1), st.integers(0, 99))
def test_shares_are_fair(total: int, wanted: dict[str, int], turn: int) -> None:
    """All of it is divided if it is wanted; who gets less than another by more than one wanted no more."""
    shares = fair_shares(total, wanted, turn=turn)
    assert sum(shares.values()) == min(total, sum(wanted.values()))
    for name, share in shares.items():
        assert share <= wanted[name]
        assert share == wanted[name] or share >= max(shares.values()) - 1


def test_a_slot_that_cannot_be_divided_goes_round() -> None:
    """With one slot and three processes each has its turn."""
    divisions = [fair_shares(1, {"a": 1, "b": 1, "c": 1}, turn=turn) for turn in range(3)]
    assert sorted(max(shares, key=lambda name: shares[name]) for shares in divisions) == ["a", "b", "c"]


def test_a_limit_divided_among_many_is_never_nothing() -> None:
    """Who is alone with a share of a small limit may still call."""
    assert divided(LimitRules(requests_per_minute=10, concurrency=2), 4) == LimitRules(
        requests_per_minute=2, concurrency=1
    )


def test_an_ask_that_changes_nothing_writes_nothing() -> None:
    """A holder is noted again only when half of its time has passed."""
    rules = LimitRules(concurrency=4)
    state, _ = lease(LimitState(), ask_of("a", slots_wanted=2), rules, now_ms=NOW)
    kept = ask_of("a", slots_kept=2, slots_wanted=2)
    assert lease(state, kept, rules, now_ms=NOW + 1_000)[0] == state
    assert lease(state, kept, rules, now_ms=NOW + 6_000)[0] != state
