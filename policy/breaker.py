"""When calls to a provider stop, and how they begin again: one state machine, shared by all workers of a lane.

    closed ---- too many failures ----> open ---- its time is over: a probe ----> half_open
       ^                                  ^---------- the probe failed --------------'  |
       '------------------------- enough probes succeeded ------------------------------'

Pure: the clock (ms since 1970, the shared store's own) is an argument. While it is half open one worker at a time
holds a lease on the probe; a worker that dies with it holds it no longer than the lease.
"""

from dataclasses import dataclass, replace
from enum import StrEnum, auto

from policy.rules import BreakerRules
from schemas.vocabulary import BreakerState, FailureCategory

PROBE_LEASE_MS = 10_000
WINDOW_SLOTS = 12
"""The window of the failure rate moves on in steps of so many parts of it."""

Slots = tuple[tuple[int, int, int], ...]
"""Number of a part of the window, calls that ended in it, and how many of them failed."""

_ANSWERED_ALL_THE_SAME = frozenset(
    {
        FailureCategory.INVALID_REQUEST,
        FailureCategory.CONTEXT_LENGTH,
        FailureCategory.CONTENT_FILTER,
        FailureCategory.REFUSAL,
        FailureCategory.NOT_FOUND,
        FailureCategory.PERMISSION,
        FailureCategory.MALFORMED,
    }
)


class Evidence(StrEnum):
    """What one call tells of its provider."""

    WELL = auto()
    UNWELL = auto()
    NOTHING = auto()


def evidence(failed_by: FailureCategory | None, *, speaks_of_provider: bool) -> Evidence:
    """What a call tells. None: it was answered.

    A provider that refuses a request by itself (400, content filter, unknown model) or answers in a form that does
    not fit is well: it answers. Our own pace (429), a cut answer, and a call that we ended ourselves tell nothing.
    """
    if failed_by is None:
        return Evidence.WELL
    if speaks_of_provider:
        return Evidence.UNWELL
    return Evidence.WELL if failed_by in _ANSWERED_ALL_THE_SAME else Evidence.NOTHING


@dataclass(frozen=True, slots=True)
class Heard:
    """Calls that ended, in their order: `successes`, then one failure or none.

    `era` is that of the breaker when they began: calls of before it last opened say nothing of today.
    """

    era: int
    successes: int
    failure: FailureCategory | None = None


@dataclass(frozen=True, slots=True)
class ProbeLease:
    """Who may make the one call of a breaker that is half open."""

    owner: str
    until_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Breaker:
    """`era` grows each time it closes; `slots` and `in_a_row` count while it is closed.

    `since_ms` and `reason` are of the present state; `opened` counts openings since it was last closed.
    """

    state: BreakerState = BreakerState.CLOSED
    era: int = 0
    since_ms: int = 0
    reason: FailureCategory | None = None
    in_a_row: int = 0
    slots: Slots = ()
    opened: int = 0
    retry_at_ms: int = 0
    successes: int = 0
    probe: ProbeLease | None = None


def hear(breaker: Breaker, heard: Heard, *, now_ms: int, rules: BreakerRules) -> Breaker:
    """After calls that were no probes. They count while it is closed."""
    if breaker.state is not BreakerState.CLOSED or heard.era != breaker.era:
        return breaker
    failures = int(heard.failure is not None)
    slots = _counted(breaker.slots, heard.successes + failures, failures, now_ms=now_ms, rules=rules)
    in_a_row = failures if heard.successes else breaker.in_a_row + failures
    breaker = replace(breaker, slots=slots, in_a_row=in_a_row)
    if heard.failure is None or not _is_too_much(breaker, rules):
        return breaker
    return _open(breaker, heard.failure, now_ms=now_ms, rules=rules)


def claim_probe(breaker: Breaker, owner: str, *, now_ms: int) -> tuple[Breaker, bool]:
    """Asks for the lease on the probe, or prolongs it. True: `owner` has it, for `PROBE_LEASE_MS`."""
    is_due = breaker.state is BreakerState.OPEN and now_ms >= breaker.retry_at_ms
    if not is_due and breaker.state is not BreakerState.HALF_OPEN:
        return breaker, False
    if not is_due and breaker.probe is not None and breaker.probe.owner != owner and breaker.probe.until_ms > now_ms:
        return breaker, False
    lease = ProbeLease(owner, now_ms + PROBE_LEASE_MS)
    if is_due:
        return replace(breaker, state=BreakerState.HALF_OPEN, since_ms=now_ms, successes=0, probe=lease), True
    return replace(breaker, probe=lease), True


def end_probe(
    breaker: Breaker,
    owner: str,
    told: Evidence,
    *,
    now_ms: int,
    rules: BreakerRules,
    failure: FailureCategory | None = None,
) -> Breaker:
    """After a probe, or with `Evidence.NOTHING` when none was made. Nothing happens unless `owner` holds the lease."""
    if breaker.state is not BreakerState.HALF_OPEN or breaker.probe is None or breaker.probe.owner != owner:
        return breaker
    breaker = replace(breaker, probe=None)
    if told is Evidence.UNWELL:
        return _open(breaker, failure, now_ms=now_ms, rules=rules)
    if told is Evidence.NOTHING:
        return breaker
    if breaker.successes + 1 >= rules.successes:
        return Breaker(era=breaker.era + 1, since_ms=now_ms)
    return replace(breaker, successes=breaker.successes + 1)


def settle_in(breaker: Breaker, *, now_ms: int, rules: BreakerRules) -> Breaker:
    """The same breaker without what has become old, so that one that has been well is as good as new."""
    if breaker.state is not BreakerState.CLOSED:
        return breaker
    return replace(breaker, slots=_recent(breaker.slots, now_ms=now_ms, rules=rules))


def _open(breaker: Breaker, reason: FailureCategory | None, *, now_ms: int, rules: BreakerRules) -> Breaker:
    # The exponent has a bound of its own: a breaker that stays open for months is still a number.
    seconds = min(rules.open_seconds * 2 ** min(breaker.opened, 32), rules.max_open_seconds)
    return Breaker(
        state=BreakerState.OPEN,
        era=breaker.era,
        since_ms=now_ms,
        reason=reason,
        opened=breaker.opened + 1,
        retry_at_ms=now_ms + int(seconds * 1000),
    )


def _is_too_much(breaker: Breaker, rules: BreakerRules) -> bool:
    if breaker.in_a_row >= rules.failures:
        return True
    calls = sum(slot[1] for slot in breaker.slots)
    failures = sum(slot[2] for slot in breaker.slots)
    return calls >= rules.min_calls and failures >= rules.failure_rate * calls


def _recent(slots: Slots, *, now_ms: int, rules: BreakerRules) -> Slots:
    newest = _slot(now_ms, rules)
    return tuple(slot for slot in slots if newest - WINDOW_SLOTS < slot[0] <= newest)


def _counted(slots: Slots, calls: int, failures: int, *, now_ms: int, rules: BreakerRules) -> Slots:
    newest = _slot(now_ms, rules)
    kept = _recent(slots, now_ms=now_ms, rules=rules)
    if kept and kept[-1][0] == newest:
        _, calls_before, failures_before = kept[-1]
        return (*kept[:-1], (newest, calls_before + calls, failures_before + failures))
    return (*kept, (newest, calls, failures)) if calls else kept


def _slot(now_ms: int, rules: BreakerRules) -> int:
    return int(now_ms // (rules.window_seconds * 1000 / WINDOW_SLOTS))
