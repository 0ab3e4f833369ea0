"""One process's part in the breakers of its provider: hears of its calls, tells the others, and knows what they told.

What happens here counts here at once, and is told to the others: a failure immediately, successes a few times a second.
What comes back is the truth; what was heard since it was asked for is put on top.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from policy.breaker import PROBE_LEASE_MS, Breaker, Evidence, Heard, claim_probe, end_probe, evidence, hear
from policy.provider_state import KEPT_SECONDS, MAX_MODELS, PROVIDER_STATE, WHOLE, ProviderState
from policy.rules import BreakerRules
from schemas.vocabulary import BreakerState, FailureCategory
from streams.gate_sharing import Sharing
from streams.gating import CallOutcome

POLL_SECONDS = 0.5
FLUSH_SECONDS = 0.25
SPACING_SECONDS = 0.005
"""Between two updates, however urgent: what comes in a storm goes out together."""
MAX_PENDING = 1_000
"""Tellings that wait for the store to come back; then the oldest are forgotten."""
DEFAULT_PAUSE_SECONDS = 1.0
"""After a 429 that does not say how long."""
LONGEST_PAUSE_BY_HEADERS_SECONDS = 60.0
"""A limit's reset may mean the moment when all of it is there again, hours from now; a Retry-After is believed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakerChange:
    """A breaker went from one state to another. `model` is empty for that of the whole provider.

    `decided_here`: by what this process told; exactly one process says so of each change, if the store was there.
    """

    provider: str
    model: str
    old: BreakerState
    new: Breaker
    decided_here: bool


@dataclass(frozen=True, slots=True)
class Pass:
    """What a call's entry has to be told when it ends: which breaker it went by, and when."""

    model: str
    breaker: str
    era: int
    is_probe: bool


@dataclass(frozen=True, slots=True)
class _Telling:
    """Something that the others have to know. One of `heard`, `probe` and `blocked_until_ms`."""

    name: str
    at: float
    heard: Heard | None = None
    probe: Evidence | None = None
    failure: FailureCategory | None = None
    blocked_until_ms: int = 0


@dataclass(slots=True)
class _Probe:
    until_ms: int
    in_use: bool = False


@dataclass(frozen=True, slots=True)
class _Reply:
    before: ProviderState
    state: ProviderState
    granted: frozenset[str]


class BreakerWatch:
    """Breakers of one provider, and its not-before times."""

    def __init__(self, sharing: Sharing, rules: BreakerRules, *, wake: Callable[[], None]) -> None:
        self._sharing = sharing
        self._rules = rules
        self._wake = wake
        self._known = ProviderState()
        self._announced = ProviderState()
        self._pending: list[_Telling] = []
        self._probes: dict[str, _Probe] = {}
        self._wanted: set[str] = set()
        self._synced_at: float | None = None
        self.on_change: list[Callable[[BreakerChange], None]] = []

    @property
    def known(self) -> ProviderState:
        return self._known

    def blocked_until_ms(self, model: str) -> int:
        """Until when no call of this model may begin; in the past, or 0, for none."""
        return self._known.blocked_until_ms(model)

    def look(self, model: str) -> Pass | None:
        """How a call would go by its breaker now, or None: not at all. A probe that is looked at is not taken yet."""
        name = self._name(model)
        breaker = self._known.breaker(name)
        if breaker.state is BreakerState.CLOSED:
            return Pass(model, name, breaker.era, is_probe=False)
        now_ms = self._sharing.clock.now_ms()
        probe = self._probes.get(name)
        if breaker.state is BreakerState.HALF_OPEN and probe and not probe.in_use and probe.until_ms > now_ms:
            return Pass(model, name, breaker.era, is_probe=True)
        self._wanted.add(name)
        if self._claimable(name, now_ms):
            self._wake()
        return None

    def enter(self, way: Pass) -> None:
        """A call begins."""
        if way.is_probe:
            self._probes[way.breaker].in_use = True

    def leave(self, way: Pass, outcome: CallOutcome | None) -> None:
        """A call has ended, or was not made after all."""
        failed_by = outcome.failed_by if outcome else None
        told = evidence(failed_by, speaks_of_provider=outcome.speaks_of_provider) if outcome else Evidence.NOTHING
        failure = failed_by if told is Evidence.UNWELL else None
        at = self._sharing.monotonic()
        if outcome is not None:
            self._block(way, outcome, told, at)
        if way.is_probe:
            self._probes.pop(way.breaker, None)
            self._tell(_Telling(way.breaker, at, probe=told, failure=failure))
        elif told is not Evidence.NOTHING:
            self._tell(_Telling(way.breaker, at, heard=Heard(way.era, int(failure is None), failure)))
        if way.is_probe or failure is not None:
            self._wake()

    def give_up_probes(self) -> None:
        """Leases on probes that nobody is making are told to be free, before this process ends."""
        for name, probe in list(self._probes.items()):
            if not probe.in_use:
                del self._probes[name]
                self._tell(_Telling(name, self._sharing.monotonic(), probe=Evidence.NOTHING))

    def due_in(self) -> float:
        """Seconds until the others should be asked or told; at once if a failure or a probe is to be told."""
        if self._synced_at is None:
            return 0.0
        urgent = any(telling.heard is None or telling.heard.failure for telling in self._pending)
        now_ms = self._sharing.clock.now_ms()
        interval = FLUSH_SECONDS if self._pending else POLL_SECONDS
        if not self._sharing.is_away and (urgent or any(self._claimable(name, now_ms) for name in self._wanted)):
            interval = SPACING_SECONDS
        for name in self._wanted:
            breaker = self._known.breaker(name)
            if breaker.state is BreakerState.OPEN:
                interval = min(interval, max(SPACING_SECONDS, (breaker.retry_at_ms - now_ms) / 1000))
        return max(0.0, self._synced_at + interval - self._sharing.monotonic())

    async def sync(self) -> bool:
        """Tells and asks the others. True: a flow that was turned away may be let in now."""
        self._synced_at = self._sharing.monotonic()
        oldest = self._synced_at - self._rules.window_seconds
        telling = [told for told in self._pending if told.at >= oldest or told.blocked_until_ms]
        self._pending = []
        claims = self._claims()

        def change(old: bytes | None, now_ms: int) -> tuple[bytes | None, _Reply]:
            before = PROVIDER_STATE.unpacked(old).tidied(now_ms=now_ms, rules=self._rules)
            state = self._after(before, telling, now_ms)
            state, granted = self._claimed(state, claims, now_ms)
            return PROVIDER_STATE.packed(state), _Reply(before, state, granted)

        try:
            reply = await self._sharing.update(f"provider:{self._sharing.lane}", change, ttl_seconds=KEPT_SECONDS)
        except BaseException:
            self._pending = (telling + self._pending)[-MAX_PENDING:]
            raise
        return self._take_over(reply)

    def go_on_alone(self) -> bool:
        """In place of `sync` while the store is away: probes are this process's own."""
        now_ms = self._sharing.clock.now_ms()
        before = self._known.tidied(now_ms=now_ms, rules=self._rules)
        state, granted = self._claimed(before, self._claims(), now_ms)
        return self._take_over(_Reply(self._announced, state, granted), is_shared=False)

    def _take_over(self, reply: _Reply, *, is_shared: bool = True) -> bool:
        now_ms = self._sharing.clock.now_ms()
        was = self._announced
        self._known = self._after(reply.state, self._pending, now_ms) if is_shared else reply.state
        for name in reply.granted:
            self._wanted.discard(name)
            if (probe := self._probes.get(name)) is not None and probe.in_use:
                probe.until_ms = now_ms + PROBE_LEASE_MS
            else:
                self._probes[name] = _Probe(now_ms + PROBE_LEASE_MS)
        self._announce(reply)
        names = was.breakers.keys() | self._known.breakers.keys()
        closed = {name for name in names if self._known.breaker(name).state is BreakerState.CLOSED}
        self._wanted -= closed
        return bool(reply.granted) or any(was.breaker(name).state is not BreakerState.CLOSED for name in closed)

    def _announce(self, reply: _Reply) -> None:
        old, self._announced = self._announced, reply.state
        for name in sorted(old.breakers.keys() | reply.state.breakers.keys()):
            before, after = old.breaker(name), reply.state.breaker(name)
            decided_here = reply.before.breaker(name).state is not after.state
            if before.state is not after.state:
                change = BreakerChange(
                    provider=self._sharing.lane, model=name, old=before.state, new=after, decided_here=decided_here
                )
                for callback in self.on_change:
                    callback(change)

    def _name(self, model: str) -> str:
        if not self._rules.per_model:
            return WHOLE
        known = self._known.breakers
        return model if model in known or len(known) < MAX_MODELS else WHOLE

    def _claimable(self, name: str, now_ms: int) -> bool:
        """Whether asking for the probe may bring it."""
        breaker = self._known.breaker(name)
        mine = self._probes.get(name)
        if mine is not None and (mine.in_use or mine.until_ms > now_ms):
            return False
        if breaker.state is BreakerState.OPEN:
            return now_ms >= breaker.retry_at_ms
        is_free = breaker.probe is None or breaker.probe.until_ms <= now_ms
        return breaker.state is BreakerState.HALF_OPEN and is_free

    def _claims(self) -> list[str]:
        """Probes to ask for, and those in use whose lease is to be prolonged."""
        now_ms = self._sharing.clock.now_ms()
        wanted = [name for name in self._wanted if self._claimable(name, now_ms)]
        in_use = [
            name
            for name, probe in self._probes.items()
            if probe.in_use and probe.until_ms - now_ms < PROBE_LEASE_MS * 2 // 3
        ]
        return sorted({*wanted, *in_use})

    def _claimed(self, state: ProviderState, names: list[str], now_ms: int) -> tuple[ProviderState, frozenset[str]]:
        granted = set()
        for name in names:
            breaker, has_it = claim_probe(state.breaker(name), self._sharing.process, now_ms=now_ms)
            if has_it:
                state = state.with_breaker(name, breaker)
                granted.add(name)
        return state, frozenset(granted)

    def _block(self, way: Pass, outcome: CallOutcome, told: Evidence, at: float) -> None:
        """A 429 is about the model; what speaks of the provider is about all of it."""
        seconds = outcome.retry_after_seconds
        is_pace = outcome.failed_by is FailureCategory.RATE_LIMITED
        if is_pace and seconds is None:
            resets = [
                limit.resets_in_seconds
                for limit in outcome.limits
                if limit.remaining == 0 and limit.resets_in_seconds is not None
            ]
            seconds = min(max(resets, default=DEFAULT_PAUSE_SECONDS), LONGEST_PAUSE_BY_HEADERS_SECONDS)
        if seconds and (is_pace or told is Evidence.UNWELL):
            until_ms = self._sharing.clock.now_ms() + int(seconds * 1000)
            self._tell(_Telling(way.model if is_pace else WHOLE, at, blocked_until_ms=until_ms))
            self._wake()

    def _tell(self, telling: _Telling) -> None:
        self._known = self._after(self._known, [telling], self._sharing.clock.now_ms())
        last = self._pending[-1] if self._pending else None
        merged = _merged(last, telling) if last is not None else None
        if merged is not None:
            self._pending[-1] = merged
        else:
            self._pending.append(telling)
            del self._pending[:-MAX_PENDING]

    def _after(self, state: ProviderState, tellings: list[_Telling], now_ms: int) -> ProviderState:
        for telling in tellings:
            breaker = state.breaker(telling.name)
            if telling.blocked_until_ms:
                state = state.with_block(telling.name, telling.blocked_until_ms, now_ms=now_ms)
            elif telling.heard is not None:
                heard = hear(breaker, telling.heard, now_ms=now_ms, rules=self._rules)
                state = state.with_breaker(telling.name, heard)
            elif telling.probe is not None:
                ended = end_probe(
                    breaker,
                    self._sharing.process,
                    telling.probe,
                    now_ms=now_ms,
                    rules=self._rules,
                    failure=telling.failure,
                )
                state = state.with_breaker(telling.name, ended)
        return state


def _merged(last: _Telling, new: _Telling) -> _Telling | None:
    """Successes, and a failure after them, as one. None: they have to be told one by one."""
    if last.heard is None or new.heard is None or last.heard.failure is not None:
        return None
    if (last.name, last.heard.era) != (new.name, new.heard.era):
        return None
    together = replace(new.heard, successes=last.heard.successes + new.heard.successes)
    return replace(new, heard=together)
