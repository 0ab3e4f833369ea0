"""Limits that all workers share: of a provider, or within it of a model or a tenant.

A process leases what its next calls need, for a short while, and spends it without asking anybody: requests and tokens
of the rates (`policy.rate`), and slots of calls at once. Pure: the state that is shared and what a process asks go in,
the next state and what it is granted come out.

Whoever has to wait stands in a queue, and what it needs is kept for it: else many small calls could keep a large one
out for ever, and a process that asks often one that asks seldom.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from policy.rate import Rate, charge, give_back, grant, lower
from policy.rules import LimitRules
from policy.stored import StoredAs

HOLD_MS = 10_000
"""A process that has not asked for so long has lost its slots, and no longer counts as a holder."""
WAIT_MS = 1_500
"""Whoever waits asks again before so long has passed, or loses its place."""
TURN_MS = 2_000
"""Where there are fewer slots than processes, they go round."""
KEPT_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Holder:
    """A process: the slots that it may be using, those that it would like, and until when (ms since 1970)."""

    slots: int
    wanted: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Waiter:
    """A process that has to wait, and the least that it can go on with."""

    process: str
    requests: int
    tokens: int
    until_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitState:
    """What the workers know together of one limit."""

    requests: Rate = field(default_factory=Rate)
    tokens: Rate = field(default_factory=Rate)
    waiting: tuple[Waiter, ...] = ()
    holders: Mapping[str, Holder] = field(default_factory=dict)


LIMIT_STATE = StoredAs(LimitState)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """What a process wants now, and what has become of what it had.

    `requests`: how many calls it would begin. `tokens`: how many it could use, of which it needs `tokens_least`.
    `unused_*` were granted and not spent; `*_beyond` were spent and not granted.
    `*_remaining`: what the provider's headers say is left; None: they do not say.
    `slots_kept`: calls that it may be making now. `slots_wanted`: those that it could make.
    """

    process: str
    requests: int = 0
    tokens: int = 0
    tokens_least: int = 0
    unused_requests: int = 0
    unused_tokens: int = 0
    requests_beyond: int = 0
    tokens_beyond: int = 0
    requests_remaining: int | None = None
    tokens_remaining: int | None = None
    slots_kept: int = 0
    slots_wanted: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """`retry_ms`: what was refused may be there by then. `slots`: so many calls at once from now on.

    `slots_held` are counted as this process's until it asks again; `holders` is how many processes share the limit.
    """

    requests: int = 0
    tokens: int = 0
    retry_ms: int = 0
    slots: int = 0
    slots_held: int = 0
    holders: int = 1


def lease(state: LimitState, ask: Ask, rules: LimitRules, *, now_ms: int) -> tuple[LimitState, Grant]:
    """One process's turn. It is granted all that it asks of both rates, at least the least, or nothing of either."""
    state = _settled(state, ask, rules, now_ms)
    state, granted = _rates(state, ask, rules, now_ms)
    return _slots(state, ask, rules, granted, now_ms)


def _settled(state: LimitState, ask: Ask, rules: LimitRules, now_ms: int) -> LimitState:
    """After what the process tells of the past."""
    return replace(
        state,
        requests=_adjusted(
            state.requests,
            rules.requests_per_minute,
            unused=ask.unused_requests,
            beyond=ask.requests_beyond,
            remaining=ask.requests_remaining,
            now_ms=now_ms,
        ),
        tokens=_adjusted(
            state.tokens,
            rules.tokens_per_minute,
            unused=ask.unused_tokens,
            beyond=ask.tokens_beyond,
            remaining=ask.tokens_remaining,
            now_ms=now_ms,
        ),
    )


def _adjusted(
    rate: Rate, per_minute: int | None, *, unused: int, beyond: int, remaining: int | None, now_ms: int
) -> Rate:
    if per_minute is None:
        return rate
    if unused:
        rate = give_back(rate, per_minute, unused, now_ms=now_ms)
    if beyond:
        rate = charge(rate, per_minute, beyond, now_ms=now_ms)
    return rate if remaining is None else lower(rate, per_minute, remaining, now_ms=now_ms)


def _rates(state: LimitState, ask: Ask, rules: LimitRules, now_ms: int) -> tuple[LimitState, Grant]:
    waiting = tuple(waiter for waiter in state.waiting if waiter.until_ms > now_ms)
    place = next((place for place, waiter in enumerate(waiting) if waiter.process == ask.process), len(waiting))
    ahead, behind = waiting[:place], waiting[place + 1 :]
    requests, tokens = state.requests, state.tokens
    granted_requests = granted_tokens = retry_ms = 0
    wants_requests = ask.requests > 0 and rules.requests_per_minute is not None
    wants_tokens = ask.tokens > 0 and rules.tokens_per_minute is not None
    if wants_requests:
        requests, granted_requests, retry_ms = grant(
            requests,
            rules.requests_per_minute or 1,
            want=ask.requests,
            least=1,
            reserved=sum(waiter.requests for waiter in ahead),
            now_ms=now_ms,
        )
    if wants_tokens:
        tokens, granted_tokens, until_tokens_ms = grant(
            tokens,
            rules.tokens_per_minute or 1,
            want=ask.tokens,
            least=max(1, ask.tokens_least),
            reserved=sum(waiter.tokens for waiter in ahead),
            now_ms=now_ms,
        )
        retry_ms = max(retry_ms, until_tokens_ms)
    if retry_ms:
        # One without the other begins no call, and would be kept from somebody who has the other.
        waiter = Waiter(
            ask.process, int(wants_requests), max(1, ask.tokens_least) if wants_tokens else 0, now_ms + WAIT_MS
        )
        return replace(state, waiting=(*ahead, waiter, *behind)), Grant(retry_ms=retry_ms)
    state = replace(state, requests=requests, tokens=tokens, waiting=(*ahead, *behind))
    return state, Grant(requests=granted_requests, tokens=granted_tokens)


def _slots(state: LimitState, ask: Ask, rules: LimitRules, granted: Grant, now_ms: int) -> tuple[LimitState, Grant]:
    others = {
        name: holder for name, holder in state.holders.items() if name != ask.process and holder.until_ms > now_ms
    }
    slots = held = 0
    if rules.concurrency is not None:
        wanted = {name: holder.wanted for name, holder in others.items()} | {ask.process: ask.slots_wanted}
        share = fair_shares(rules.concurrency, wanted, turn=now_ms // TURN_MS)[ask.process]
        free = rules.concurrency - sum(holder.slots for holder in others.values())
        slots = max(0, min(share, free))
        # What may be in use is given up when the process says that it is not, never before.
        held = max(slots, ask.slots_kept)
    me = Holder(held, ask.slots_wanted, now_ms + HOLD_MS)
    known = state.holders.get(ask.process)
    if known is not None and known == replace(me, until_ms=known.until_ms) and known.until_ms - now_ms > HOLD_MS // 2:
        me = known
    # In the order of names, so that a state that means the same is the same bytes.
    holders = dict(sorted({**others, ask.process: me}.items()))
    return replace(state, holders=holders), replace(granted, slots=slots, slots_held=held, holders=len(holders))


def fair_shares(total: int, wanted: Mapping[str, int], *, turn: int) -> dict[str, int]:
    """Divides `total`: nobody gets more than wanted, and what one does not want is divided among the others.

    What cannot be divided goes to another one with each `turn`.
    """
    names = sorted(wanted)
    names = names[turn % len(names) :] + names[: turn % len(names)]
    level, left = 0, total
    while (hungry := [name for name in names if wanted[name] > level]) and left >= len(hungry):
        step = min(left // len(hungry), min(wanted[name] for name in hungry) - level)
        level, left = level + step, left - step * len(hungry)
    lucky = hungry[:left]
    return {name: min(wanted[name], level) + (name in lucky) for name in names}


def divided(rules: LimitRules, holders: int) -> LimitRules:
    """One of so many equal parts of a limit, and at least 1."""

    def part(limit: int | None) -> int | None:
        return None if limit is None else max(1, limit // holders)

    return LimitRules(
        requests_per_minute=part(rules.requests_per_minute),
        tokens_per_minute=part(rules.tokens_per_minute),
        concurrency=part(rules.concurrency),
    )
