"""One process's part of one shared limit: what it has leased of it, and may spend without asking anybody.

Requests and tokens are leased in portions of about 100 ms of the rate, and given back when they were not spent in time;
slots of calls at once for as long as they are used. While the store is away, the limit divided by the number of its
last known holders is this process's own.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum, auto
from math import inf

from connectors.providers.base import LimitedResource, RateLimit
from policy.limits import HOLD_MS, KEPT_SECONDS, LIMIT_STATE, Ask, Grant, LimitState, divided, lease
from policy.rate import GRANT_LIFE_MS, MINUTE_MS, SLOT_MS, Rate, burst
from policy.rules import LimitRules
from streams.gate_portions import Amount, Portions
from streams.gate_sharing import Sharing
from streams.gating import Flow

PORTION_SECONDS = 0.1
SPACING_SECONDS = 0.01
"""Between two asks, times the number of holders: all of them together ask a hundred times a second at most."""
LONGEST_RETRY_SECONDS = 0.5
RENEW_SECONDS = 1.0
GIVE_BACK_SECONDS = 0.5
FORGOTTEN_AFTER_SECONDS = 60.0
COME_BACK_SECONDS = 1.0


class Lack(StrEnum):
    """What a flow has to wait for."""

    REQUESTS = auto()
    TOKENS = auto()
    CONCURRENCY = auto()


@dataclass(slots=True)
class _TurnedAway:
    """Calls that wait for the rates, with all their tokens, and calls that wait for a slot."""

    requests: int = 0
    tokens: int = 0
    slots: int = 0


@dataclass(slots=True)
class _Place:
    """A flow's place among those that wait for the rates: its next call's tokens, and when it has to be back."""

    tokens: int
    until: float = inf


@dataclass(slots=True)
class _News:
    """What the others have to know: granted and not spent, spent and not granted, and what the provider said."""

    unused: Amount = field(default_factory=Amount)
    beyond: Amount = field(default_factory=Amount)
    requests_remaining: int | None = None
    tokens_remaining: int | None = None

    @property
    def is_some(self) -> bool:
        is_told = self.requests_remaining is not None or self.tokens_remaining is not None
        return is_told or not self.unused.is_nothing or not self.beyond.is_nothing


class LimitShare:
    """This process's share of the limit named `name`."""

    def __init__(self, sharing: Sharing, name: str, rules: LimitRules, *, is_told_by_provider: bool = True) -> None:
        self._sharing = sharing
        self._name = name
        self._rules = self._rules_now = rules
        self.is_told_by_provider = is_told_by_provider
        self._left = Portions(sharing.monotonic)
        self._spent = Amount()
        self._turned_away = _TurnedAway()
        self._places: dict[Flow, _Place] = {}
        self._news = _News()
        self._in_use = self._most_in_use = 0
        self._slots = self._slots_held = 0
        self._hold_ends_at = -inf
        self._holders = 1
        self._asked_at = self._retry_at = -inf
        self._used_at = sharing.monotonic()
        self._alone: LimitState | None = None

    def lack(self, flow: Flow, tokens: int) -> Lack | None:
        """What stands in the way of a call of so many tokens. None: it may begin."""
        if self._rules.concurrency is not None and self._in_use >= self._usable_slots():
            return Lack.CONCURRENCY
        if not self._has_rates:
            return None
        left = self._left.left()
        if self._rules.requests_per_minute is not None and not left.requests:
            return Lack.REQUESTS
        first = next(iter(self._places), flow)
        kept = 0 if first == flow else self._places[first].tokens
        return Lack.TOKENS if left.tokens - kept < self._needed(tokens) else None

    def turn_away(self, flow: Flow, lack: Lack, tokens: int) -> None:
        """A call of so many tokens could not begin, for this lack."""
        self._used_at = self._sharing.monotonic()
        if lack is Lack.CONCURRENCY:
            self._turned_away.slots += 1
            return
        self._turned_away.requests += 1
        self._turned_away.tokens += self._needed(tokens)
        self._places[flow] = _Place(self._needed(tokens))  # a flow that has a place keeps it

    def everybody_asks_again(self) -> bool:
        """All that was turned away comes back at once, so it is counted anew. True: some flow has to come back soon.

        A flow that does not (its deadlines have passed, say) loses its place, and what is kept for it.
        """
        self._turned_away = _TurnedAway()
        now = self._sharing.monotonic()
        self._places = {flow: place for flow, place in self._places.items() if place.until > now}
        for place in self._places.values():
            place.until = min(place.until, now + COME_BACK_SECONDS)
        return bool(self._places)

    def take(self, flow: Flow, tokens: int) -> Amount:
        """A call of so many tokens begins. Only after `lack` said None. Returns what it has reserved."""
        self._places.pop(flow, None)
        self._used_at = self._sharing.monotonic()
        self._in_use += 1
        self._most_in_use = max(self._most_in_use, self._in_use)
        reserved = Amount(int(self._rules.requests_per_minute is not None), self._needed(tokens))
        self._left.take(reserved.requests, reserved.tokens)
        self._spent.add(reserved.requests, reserved.tokens)
        return reserved

    def leave(self, reserved: Amount, *, was_called: bool, tokens_used: int | None) -> None:
        """It has ended. `tokens_used` None: nobody knows, so what was reserved stays spent."""
        self._in_use -= 1
        if not was_called:
            self._news.unused.add(reserved.requests, reserved.tokens)
        elif self._rules.tokens_per_minute is not None and tokens_used is not None:
            self._news.unused.tokens += max(0, reserved.tokens - tokens_used)
            self._news.beyond.tokens += max(0, tokens_used - reserved.tokens)

    def told(self, limits: Iterable[RateLimit]) -> None:
        """The provider says how much of its own limits is left. More than the bucket holds does not matter."""
        for limit in limits:
            if limit.remaining is None:
                continue
            if limit.resource is LimitedResource.REQUESTS:
                self._news.requests_remaining = _lower(
                    self._news.requests_remaining, limit.remaining, self._rules.requests_per_minute
                )
            else:
                self._news.tokens_remaining = _lower(
                    self._news.tokens_remaining, limit.remaining, self._rules.tokens_per_minute
                )

    @property
    def waits_for_slots(self) -> bool:
        """Whether a flow waits for a call to end here."""
        return self._turned_away.slots > 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost if this object were."""
        is_long_ago = self._sharing.monotonic() - self._used_at >= FORGOTTEN_AFTER_SECONDS
        is_empty = self._left.first_end() is None and not self._slots_held and not self._in_use
        return is_long_ago and is_empty and not self._news.is_some

    def due_in(self) -> float:
        """Seconds until the others should be asked or told; infinity if there is nothing to say."""
        now = self._sharing.monotonic()
        spaced_at = self._asked_at + SPACING_SECONDS * self._holders
        if self._turned_away.requests or self._turned_away.slots or self._runs_low():
            return max(spaced_at, self._retry_at) - now
        due_at = inf
        if self._slots_held > max(self._in_use, self._slots):
            due_at = self._asked_at + PORTION_SECONDS
        elif self._slots_held or (self._in_use and self._rules.concurrency is not None):
            due_at = self._asked_at + RENEW_SECONDS
        first_end = self._left.first_end()
        if self._news.is_some or (first_end is not None and first_end <= now):
            due_at = min(due_at, self._asked_at + GIVE_BACK_SECONDS)
        elif first_end is not None:
            due_at = min(due_at, first_end)
        return max(spaced_at, due_at) - now

    async def ask(self) -> bool:
        """Leases what is wanted, tells what was used. True: a flow that was turned away may be let in now."""
        began, ask = self._begin(alone=False)

        def change(old: bytes | None, now_ms: int) -> tuple[bytes | None, Grant]:
            state, grant = lease(LIMIT_STATE.unpacked(old), ask, self._rules, now_ms=now_ms)
            return LIMIT_STATE.packed(state), grant

        try:
            grant = await self._sharing.update(f"limit:{self._name}", change, ttl_seconds=KEPT_SECONDS)
        except BaseException:
            self._news.unused.add(ask.unused_requests, ask.unused_tokens)
            self._news.beyond.add(0, ask.tokens_beyond)
            raise
        self._alone, self._rules_now = None, self._rules
        self._holders = grant.holders
        return self._granted(grant, began)

    async def give_up(self) -> None:
        """Gives back what is not in use, before this process ends."""
        self._turned_away, self._places = _TurnedAway(), {}
        self._slots, self._most_in_use = 0, self._in_use
        self._spent = Amount()
        left = self._left.left()
        self._left.take(left.requests, left.tokens)
        self._news.unused.add(left.requests, left.tokens)
        await self.ask()

    def ask_alone(self) -> bool:
        """In place of `ask` while the store is away."""
        now_ms = self._sharing.clock.now_ms()
        if self._alone is None:
            # Nothing in hand: what the others were granted in the minute behind us is not known here.
            self._alone = LimitState(requests=Rate(0.0, now_ms), tokens=Rate(0.0, now_ms))
            self._rules_now = divided(self._rules, self._holders)
        began, ask = self._begin(alone=True)
        self._alone, grant = lease(self._alone, ask, self._rules_now, now_ms=now_ms)
        return self._granted(grant, began)

    def _begin(self, *, alone: bool) -> tuple[float, Ask]:
        """What to ask. The news in it are told, and not told again."""
        began = self._asked_at = self._sharing.monotonic()
        ended = self._left.ended()
        self._news.unused.add(ended.requests, ended.tokens)
        news, self._news = self._news, _News()
        waiting, left = self._turned_away, self._left.left()
        requests = waiting.requests - left.requests
        first = next(iter(self._places.values()), None)
        tokens_least = max(0, first.tokens - left.tokens) if first is not None and waiting.requests else 0
        tokens = max(tokens_least, waiting.tokens - left.tokens)
        if self._runs_low():
            requests, tokens = max(1, requests), max(1, tokens)
        if requests > 0:
            requests = min(_portion(self._rules.requests_per_minute), requests + self._spent.requests)
        if tokens > 0:
            tokens = max(tokens_least, min(_portion(self._rules.tokens_per_minute), tokens + self._spent.tokens))
        beyond = Amount() if alone else self._spent_alone()
        holds = began < self._hold_ends_at
        return began, Ask(
            process=self._sharing.process,
            requests=max(0, requests),
            tokens=max(0, tokens),
            tokens_least=tokens_least,
            unused_requests=news.unused.requests,
            unused_tokens=news.unused.tokens,
            requests_beyond=beyond.requests,
            tokens_beyond=news.beyond.tokens + beyond.tokens,
            requests_remaining=news.requests_remaining,
            tokens_remaining=news.tokens_remaining,
            slots_kept=max(self._in_use, self._slots) if holds else self._in_use,
            slots_wanted=max(self._most_in_use, self._in_use + waiting.slots),
        )

    def _granted(self, grant: Grant, began: float) -> bool:
        waiting = self._turned_away
        waited_for_rates, waited_for_slots = waiting.requests > 0, waiting.slots > 0
        self._left.add(grant.requests, grant.tokens, ends_at=began + GRANT_LIFE_MS / 1000)
        self._slots, self._slots_held = grant.slots, grant.slots_held
        self._hold_ends_at = began + HOLD_MS / 1000
        self._most_in_use = self._in_use
        has_rates, has_slots = grant.retry_ms == 0, self._in_use < self._slots
        if has_rates:
            self._spent = Amount()
        if waited_for_rates and not has_rates:
            retry_seconds = min(grant.retry_ms / 1000, LONGEST_RETRY_SECONDS)
        elif waited_for_slots and not has_slots:
            # Who has some already gets more when others renew; who has none should not wait so long.
            retry_seconds = RENEW_SECONDS if self._slots else PORTION_SECONDS
        else:
            retry_seconds = 0.0
        self._retry_at = self._sharing.monotonic() + retry_seconds
        return (waited_for_rates and has_rates) or (waited_for_slots and has_slots)

    def _spent_alone(self) -> Amount:
        """What was granted here, and not by the store, in the minute behind us."""
        if self._alone is None:
            return Amount()
        since = (self._sharing.clock.now_ms() - MINUTE_MS) // SLOT_MS
        return Amount(_since(self._alone.requests, since), _since(self._alone.tokens, since))

    def _runs_low(self) -> bool:
        """Whether to lease before somebody is turned away: where there is plenty for all holders, and it is used."""
        per_minute = self._rules.requests_per_minute
        if per_minute is None or not self._spent.requests:
            return False
        is_plenty = _portion(per_minute) >= 2 * self._holders
        return is_plenty and self._left.left().requests <= self._spent.requests // 2

    @property
    def _has_rates(self) -> bool:
        return self._rules.requests_per_minute is not None or self._rules.tokens_per_minute is not None

    def _usable_slots(self) -> int:
        return self._slots if self._sharing.monotonic() < self._hold_ends_at else 0

    def _needed(self, tokens: int) -> int:
        per_minute = self._rules_now.tokens_per_minute
        return 0 if per_minute is None else min(max(1, tokens), per_minute)


def _portion(per_minute: int | None) -> int:
    return 0 if per_minute is None else max(1, int(per_minute * PORTION_SECONDS * 1000 / MINUTE_MS))


def _since(rate: Rate, oldest_slot: int) -> int:
    return sum(amount for slot, amount in rate.granted if slot >= oldest_slot)


def _lower(known: int | None, remaining: int, per_minute: int | None) -> int | None:
    if per_minute is None or remaining >= burst(per_minute):
        return known
    return remaining if known is None else min(known, remaining)
