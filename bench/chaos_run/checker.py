"""Judges what a run left behind. Pure: logs in, findings out. It imports nothing of what it judges.

A finding is a request for which a promise was broken. Beside the findings stand counts, of what may happen and should
be known: repeats, calls that were made twice and said so, flags that were raised for nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

from bench.chaos_run.logs import Attempt, Call, Event, Logs, Result, Sent

TERMINAL = frozenset({"completed", "failed", "expired", "cancelled", "rejected"})
ENDS_OF_A_LIVE_ONE = frozenset({"failed", "expired", "cancelled"})
MAY_FOLLOW: Mapping[str, frozenset[str]] = {
    "queued": frozenset({"processing", "queued", "retry_scheduled"}) | ENDS_OF_A_LIVE_ONE,
    "processing": frozenset({"processing", "queued", "retry_scheduled", "completed"}) | ENDS_OF_A_LIVE_ONE,
    "retry_scheduled": frozenset({"queued", "processing"}) | ENDS_OF_A_LIVE_ONE,
}
"""Asked only of versions that are neighbours: between others lies a change that was not published."""
MAX_REAL_CALLS = 4
"""One, and three retries. Lost calls are none of them."""
LATE_SECONDS = 1.0

FINDINGS: Mapping[str, str] = {
    "lost": "no terminal event, or no result",
    "ended twice": "two terminal events with different ids, or with one id and different accounts",
    "two results": "two results with different ids, or with one id and different answers",
    "two accounts of the end": "result and terminal event name different states or versions",
    "moved after its end": "an event with a higher version than the terminal one",
    "version used twice": "two different events with one version",
    "impossible change": "a state that cannot follow the one before it",
    "superseded attempt won": "the answer is of an attempt, and a later one had begun before it (a zombie settled)",
    "attempt told in two ways": "two records of one attempt that differ",
    "attempt not recorded": "the result tells of an attempt that llm.attempts does not have",
    "unflagged call": "the provider was called once more than any record admits",
    "flags miscounted": "possibly_billed_calls is not the number of attempts so flagged",
    "answer of somebody else": "the answer is not the one that the provider gave to this request",
    "called elsewhere": "pinned to one provider, and called at another",
    "called again against its will": "duplicate_policy is fail, and it was called after a lost call",
    "too many calls": f"more than {MAX_REAL_CALLS} calls that were no lost ones",
    "never sent": "an end for a request that nobody had sent",
    "records left unread": "a group had not committed them, though every request had ended",
    "counted still": "the shared state counts requests as outstanding that have ended",
}


BAR: Mapping[str, str] = {
    "lost": "requests lost",
    "ended twice": "second terminal states",
    "unflagged call": "extra calls without a flag",
}
"""What a run is for: none of these, in the words of its report."""


@dataclass(kw_only=True)
class Verdict:
    """`findings` by name: what was found, one text each. `counts` by name; `states`: requests by how they ended.

    `ends`, `results`: how many requests have so many different terminal events, and results; repeats that say the same
    are one. `calls`: how many attempts have no call at the provider (0), one, or more than one (2).
    """

    findings: dict[str, list[str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    ends: Counter[int] = field(default_factory=Counter)
    results: Counter[int] = field(default_factory=Counter)
    calls: Counter[int] = field(default_factory=Counter)

    @property
    def is_clean(self) -> bool:
        return not any(self.findings.values())

    def count_of(self, finding: str) -> int:
        return len(self.findings.get(finding, ()))

    def found(self, name: str, what: str) -> None:
        if name not in FINDINGS:
            raise KeyError(name)
        self.findings.setdefault(name, []).append(what)


@dataclass(kw_only=True)
class _History:
    """All that is known of one request."""

    sent: Sent
    events: list[Event] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    @property
    def request_id(self) -> str:
        return self.sent.request_id

    @property
    def terminal_events(self) -> list[Event]:
        return [event for event in self.events if event.state in TERMINAL]

    @property
    def told_attempts(self) -> list[Attempt]:
        """Those of llm.attempts and those of results: repeats of one another, if all is well."""
        return self.attempts + [attempt for result in self.results for attempt in result.attempts]

    def attempts_by_number(self) -> dict[int, Attempt]:
        return {attempt.number: attempt for attempt in self.told_attempts}


def check(logs: Logs) -> Verdict:
    """The verdict on a run. Every request of `logs.sent` is expected to have ended."""
    verdict = Verdict()
    histories = {sent.request_id: _History(sent=sent) for sent in logs.sent}
    for kind in ("events", "results", "attempts", "calls"):
        for entry in getattr(logs, kind):
            if entry.request_id in histories:
                getattr(histories[entry.request_id], kind).append(entry)
            else:
                verdict.found("never sent", f"{entry.request_id} ({kind})")
    for history in histories.values():
        _check_end(history, verdict)
        _check_versions(history, verdict)
        _check_attempts(history, verdict)
        _check_calls(history, verdict)
        _check_answer(history, verdict)
        _check_wishes(history, verdict)
    for topic, count in logs.unread:
        if count:
            verdict.found("records left unread", f"{topic}: {count}")
    if logs.counted_still:
        verdict.found("counted still", f"{logs.counted_still}")
    _count(logs, histories.values(), verdict)
    return verdict


def _check_end(history: _History, verdict: Verdict) -> None:
    name, ends, results = history.request_id, history.terminal_events, history.results
    if not ends or not results:
        missing = [word for word, there in (("terminal event", ends), ("result", results)) if not there]
        verdict.found("lost", f"{name}: no {' and no '.join(missing)}; {_told(history)}")
    # Ids are computed, so two ends that were reached apart may have the same: what they say tells them apart.
    different_ends = {replace(event, order=0) for event in ends}
    for different, spread, what in (
        (len(different_ends), verdict.ends, "ended twice"),
        (len(set(results)), verdict.results, "two results"),
    ):
        spread[different] += 1
        if different > 1:
            verdict.found(what, f"{name}: {_told(history)}")
    accounts = {(event.state, event.version) for event in ends} | {(r.status, r.version) for r in results}
    if len({event.ce_id for event in ends}) == 1 and len(accounts) > 1:
        verdict.found("two accounts of the end", f"{name}: {sorted(accounts)}")
    for state in {event.state for event in ends}:
        verdict.states[state] += 1
    for status, category in {(result.status, result.category) for result in results if result.category}:
        verdict.counts[f"{status}: {category}"] += 1


def _check_versions(history: _History, verdict: Verdict) -> None:
    name = history.request_id
    by_version: dict[int, set[tuple[str, str]]] = defaultdict(set)
    for event in history.events:
        by_version[event.version].add((event.ce_id, event.state))
    for version, told in by_version.items():
        if len(told) > 1:
            verdict.found("version used twice", f"{name}: version {version} is {sorted(state for _, state in told)}")
    first_end = min((event.version for event in history.terminal_events), default=None)
    if first_end is not None and any(e.version > first_end and e.state not in TERMINAL for e in history.events):
        verdict.found("moved after its end", f"{name}: {_told(history)}")
    states = {event.version: event.state for event in history.events}
    for version, state in states.items():
        after = states.get(version + 1)
        if after is not None and state not in TERMINAL and after not in MAY_FOLLOW[state]:
            verdict.found("impossible change", f"{name}: {state} to {after}, version {version + 1}")
    for end in history.terminal_events:
        # Other ends need no call: they name the last one that was made, and a later claim may have made none.
        begun_before = [e.attempt for e in history.events if e.version < end.version]
        if end.state == "completed" and max(begun_before, default=0) > end.attempt:
            verdict.found("superseded attempt won", f"{name}: answered by attempt {end.attempt}; {_told(history)}")


def _check_attempts(history: _History, verdict: Verdict) -> None:
    name = history.request_id
    told: dict[int, set[Attempt]] = defaultdict(set)
    for attempt in history.told_attempts:
        told[attempt.number].add(attempt)
    for number, accounts in told.items():
        if len(accounts) > 1:
            words = sorted(f"{a.outcome} by {a.worker}, call {a.call}" for a in accounts)
            verdict.found("attempt told in two ways", f"{name}: attempt {number} is {words}")
    recorded = {attempt.number for attempt in history.attempts}
    for result in history.results:
        numbers = {attempt.number for attempt in result.attempts}
        if numbers - recorded:
            verdict.found("attempt not recorded", f"{name}: {sorted(numbers - recorded)}")
        if result.possibly_billed_calls != sum(attempt.possibly_billed for attempt in result.attempts):
            verdict.found("flags miscounted", f"{name}: the result says {result.possibly_billed_calls}")
        for end in history.terminal_events:
            if end.version == result.version and end.possibly_billed_calls != result.possibly_billed_calls:
                verdict.found("flags miscounted", f"{name}: the event says {end.possibly_billed_calls}")
    real = [attempt for attempt in history.attempts_by_number().values() if attempt.outcome != "lost"]
    if len(real) > MAX_REAL_CALLS:
        verdict.found("too many calls", f"{name}: {len(real)}")


def _check_calls(history: _History, verdict: Verdict) -> None:
    """Each call at the provider is the one that answered, or a refusal that is recorded, or is owned up to.

    An attempt that learned the provider's name for its call vouches for that call alone. Of the rest nobody can tell
    which is which, so they are counted: as many flags are needed as there are calls without a name here.
    """
    attempts = history.attempts_by_number().values()
    by_call = {attempt.call: attempt for attempt in attempts if attempt.call is not None}
    nameless_flags = sum(attempt.possibly_billed for attempt in attempts if attempt.call is None)
    delivered = {a.call for r in history.results if r.status == "completed" for a in r.attempts[-1:]}
    nameless_calls, used_flags = 0, 0
    for call in history.calls:
        attempt = by_call.get(call.call)
        if attempt is None:
            nameless_calls += 1
        elif attempt.possibly_billed:
            used_flags += 1
        elif not call.is_refusal and not (attempt.outcome == "answered" and call.call in delivered):
            verdict.found("unflagged call", f"{history.request_id}: {call.call} ({call.status}) is {attempt.outcome}")
    if nameless_calls > nameless_flags:
        verdict.found(
            "unflagged call",
            f"{history.request_id}: {nameless_calls} calls that no attempt names, {nameless_flags} flags; "
            f"{_told(history)}",
        )
    _spread_calls(history, by_call.keys(), nameless_calls, verdict)
    used_flags += min(nameless_calls, nameless_flags)
    paid = sum(not call.is_refusal for call in history.calls)
    verdict.counts["calls"] += len(history.calls)
    verdict.counts["calls refused by the provider"] += len(history.calls) - paid
    verdict.counts["calls beyond the first that was not refused"] += max(0, paid - 1)
    verdict.counts["calls that no attempt names"] += nameless_calls
    verdict.counts["flags"] += sum(attempt.possibly_billed for attempt in attempts)
    verdict.counts["flags with a call"] += used_flags


def _spread_calls(history: _History, named: Set[str], nameless_calls: int, verdict: Verdict) -> None:
    """Counts attempts by their calls: none, one, or (2) more, where there are calls that no attempt can account for."""
    attempts = len(history.attempts_by_number())
    nameless_attempts = attempts - len(named)
    matched = len({call.call for call in history.calls} & named) + min(nameless_calls, nameless_attempts)
    beyond = max(0, nameless_calls - nameless_attempts)
    verdict.calls[0] += attempts - matched
    verdict.calls[1] += matched - min(matched, beyond)
    verdict.calls[2] += beyond


def _check_answer(history: _History, verdict: Verdict) -> None:
    calls = {call.call: call for call in history.calls}
    for result in history.results:
        if result.status != "completed":
            continue
        named = [attempt.call for attempt in result.attempts if attempt.outcome == "answered"]
        call = calls.get(named[-1] or "") if named else None
        answer = result.answer or ""
        fits = call is not None and call.call in answer and history.request_id in answer
        if not fits or (call is not None and call.status != 200):
            verdict.found("answer of somebody else", f"{history.request_id}: call {named} says {answer!r:.120}")


def _check_wishes(history: _History, verdict: Verdict) -> None:
    sent, name = history.sent, history.request_id
    if sent.provider is not None:
        elsewhere = sorted({call.provider for call in history.calls} - {sent.provider})
        if elsewhere:
            verdict.found("called elsewhere", f"{name}: pinned to {sent.provider}, called at {elsewhere}")
    if sent.fail_when_lost:
        attempts = history.attempts_by_number()
        lost = [number for number, attempt in attempts.items() if attempt.outcome == "lost"]
        if lost and any(number > min(lost) and a.outcome != "lost" for number, a in attempts.items()):
            verdict.found("called again against its will", f"{name}: {_told(history)}")
    if sent.deadline is not None:
        deadline = sent.deadline
        late = 0.0 if sent.answered is None else sent.answered - deadline
        verdict.counts["with a short deadline"] += 1
        verdict.counts["ended over 1 s after their deadline"] += late > LATE_SECONDS
        verdict.counts["latest of these, in s"] = max(verdict.counts["latest of these, in s"], round(late))
        verdict.counts["calls begun after their deadline"] += sum(call.begun > deadline for call in history.calls)
    if sent.cancel_asked is not None:
        asked = sent.cancel_asked
        verdict.counts["asked to be cancelled"] += 1
        verdict.counts["called over 1 s after they were cancelled"] += any(
            call.begun > asked + LATE_SECONDS for call in history.calls
        )


def _count(logs: Logs, histories: Iterable[_History], verdict: Verdict) -> None:
    counts = verdict.counts
    terminal = [event for event in logs.events if event.state in TERMINAL]
    counts["requests"] = len(logs.sent)
    counts["requests sent twice"] = sum(sent.copies > 1 for sent in logs.sent)
    counts["terminal events, raw"] = len(terminal)
    counts["terminal events, by id"] = len({event.ce_id for event in terminal})
    counts["results, raw"] = len(logs.results)
    counts["results, by id"] = len({result.ce_id for result in logs.results})
    counts["attempt records, raw"] = len(logs.attempts)
    counts["attempt records, by number"] = len({(a.request_id, a.number) for a in logs.attempts})
    counts["attempts lost"] = len({(a.request_id, a.number) for a in logs.attempts if a.outcome == "lost"})
    counts["dead letters"] = len(logs.dead_letters)
    counts["flags without a call"] = counts["flags"] - counts["flags with a call"]
    counts["gaps between versions"] = sum(_gaps(history.events) for history in histories)
    counts["events that came after a later one"] = sum(_out_of_order(h.events) for h in histories)
    for provider in sorted({call.provider for call in logs.calls}):
        counts[f"calls at once at {provider}"] = _at_once([c for c in logs.calls if c.provider == provider])
    for (number, outcome), times in Counter(_numbered(logs.attempts)).items():
        counts[f"attempt {number}: {outcome}"] = times


def _numbered(attempts: Sequence[Attempt]) -> Iterator[tuple[int, str]]:
    for attempt in {(a.request_id, a.number): a for a in attempts}.values():
        yield attempt.number, attempt.outcome


def _at_once(calls: Sequence[Call]) -> int:
    """The most calls that ran at one time, by the provider's clock."""
    changes = [(call.begun, 1) for call in calls] + [(call.ended, -1) for call in calls if call.ended is not None]
    return max(accumulate(change for _, change in sorted(changes)), default=0)


def _gaps(events: Sequence[Event]) -> int:
    versions = sorted({event.version for event in events})
    return sum(after != before + 1 for before, after in pairwise(versions))


def _out_of_order(events: Sequence[Event]) -> int:
    """First tellings only: a repeat is always late."""
    highest, seen, late = 0, set(), 0
    for event in sorted(events, key=lambda event: event.order):
        if event.version not in seen:
            late += event.version < highest
            seen.add(event.version)
            highest = max(highest, event.version)
    return late


def _told(history: _History) -> str:
    """What the records say of a request, in a line for a person."""
    events = " ".join(f"{e.version}:{e.state}/{e.attempt}" for e in sorted(history.events, key=lambda e: e.version))
    attempts = " ".join(
        f"{number}:{a.outcome}{'!' if a.possibly_billed else ''}={a.call}"
        for number, a in sorted(history.attempts_by_number().items())
    )
    calls = " ".join(f"{call.call}:{call.status}" for call in history.calls)
    return f"events [{events}] attempts [{attempts}] calls [{calls}]"
