"""The checker of the chaos run is shown logs with one fault each, and finds that fault and no other."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from bench.chaos_run.checker import FINDINGS, Verdict, check
from bench.chaos_run.logs import Attempt, Call, Event, Logs, Result, Sent

NAME = "chaos-000007"


def event(version: int, state: str, *, attempt: int = 1, billed: int = 0, ce_id: str | None = None) -> Event:
    return Event(
        request_id=NAME,
        ce_id=ce_id or f"event-{version}",
        state=state,
        version=version,
        attempt=attempt,
        possibly_billed_calls=billed,
        order=version,
    )


def attempt(number: int, outcome: str, *, call: str | None = None, billed: bool = False) -> Attempt:
    return Attempt(
        request_id=NAME,
        number=number,
        outcome=outcome,
        provider="alpha",
        possibly_billed=billed,
        call=call,
        worker="here:1",
    )


def result(version: int, status: str, attempts: tuple[Attempt, ...], *, call: str | None = None) -> Result:
    return Result(
        request_id=NAME,
        ce_id=f"result-{version}",
        status=status,
        version=version,
        answer=call and f"This answers {NAME} by call {call}.",
        attempts=attempts,
        possibly_billed_calls=sum(one.possibly_billed for one in attempts),
    )


def call(name: str, *, status: int | str | None = 200, provider: str = "alpha", begun: float = 90.0) -> Call:
    return Call(call=name, provider=provider, request_id=NAME, begun=begun, ended=begun + 1, status=status)


def logs(
    *,
    events: tuple[Event, ...],
    attempts: tuple[Attempt, ...],
    calls: tuple[Call, ...],
    results: tuple[Result, ...],
) -> Logs:
    return Logs(sent=(Sent(request_id=NAME),), events=events, results=results, attempts=attempts, calls=calls)


ANSWERED = attempt(1, "answered", call="alpha-1")
GOOD = logs(
    events=(event(1, "queued"), event(2, "processing"), event(3, "completed")),
    attempts=(ANSWERED,),
    calls=(call("alpha-1"),),
    results=(result(3, "completed", (ANSWERED,), call="alpha-1"),),
)

LOST = attempt(1, "lost", billed=True)
SECOND = attempt(2, "answered", call="alpha-2")
CALLED_TWICE = logs(
    events=(
        event(1, "queued"),
        event(2, "processing"),
        event(3, "processing", attempt=2),
        event(4, "completed", attempt=2, billed=1),
    ),
    attempts=(LOST, SECOND),
    calls=(call("alpha-1", status="gone"), call("alpha-2")),
    results=(result(4, "completed", (LOST, SECOND), call="alpha-2"),),
)

REFUSED = attempt(1, "failed", call="alpha-1")
AFTER_A_RETRY = logs(
    events=(
        event(1, "queued"),
        event(2, "processing"),
        event(3, "retry_scheduled"),
        event(4, "queued", attempt=2),
        event(5, "processing", attempt=2),
        event(6, "completed", attempt=2),
    ),
    attempts=(REFUSED, SECOND),
    calls=(call("alpha-1", status=429), call("alpha-2")),
    results=(result(6, "completed", (REFUSED, SECOND), call="alpha-2"),),
)


@pytest.mark.parametrize("good", [GOOD, CALLED_TWICE, AFTER_A_RETRY], ids=["plain", "called twice", "retried"])
def test_logs_without_a_fault_are_clean(good: Logs) -> None:
    """Repeats that say the same are no fault: everything may be told twice."""
    later = tuple(replace(event, order=event.order + 10) for event in good.events)
    twice = replace(
        good, events=good.events + later, results=good.results * 2, attempts=good.attempts * 2, dead_letters=(NAME,)
    )
    assert check(good).findings == {}
    assert check(twice).findings == {}
    assert check(twice).counts["terminal events, raw"] == 2
    assert check(twice).counts["terminal events, by id"] == 1


def changed(base: Logs, **changes: object) -> Logs:
    return replace(base, **changes)  # type: ignore[arg-type]


def with_attempts(base: Logs, *attempts: Attempt) -> Logs:
    """The same attempts in their topic and in the result."""
    (only,) = base.results
    flags = sum(one.possibly_billed for one in attempts)
    events = tuple(replace(e, possibly_billed_calls=flags) if e.state == "completed" else e for e in base.events)
    return replace(
        base,
        attempts=attempts,
        events=events,
        results=(replace(only, attempts=attempts, possibly_billed_calls=flags),),
    )


def sent(base: Logs, **wishes: object) -> Logs:
    return replace(base, sent=(Sent(request_id=NAME, **wishes),))  # type: ignore[arg-type]


FAULTS: list[tuple[str, str, Callable[[], Logs]]] = [
    ("lost", "no result", lambda: changed(GOOD, results=())),
    ("lost", "no terminal event", lambda: changed(GOOD, events=GOOD.events[:2])),
    ("lost", "nothing at all", lambda: changed(GOOD, events=(), results=(), attempts=(), calls=())),
    (
        "ended twice",
        "completed again later",
        lambda: changed(GOOD, events=(*GOOD.events, event(9, "completed"))),
    ),
    (
        "ended twice",
        "two ids, one state",
        lambda: changed(GOOD, events=(*GOOD.events, event(3, "completed", ce_id="another"))),
    ),
    (
        "ended twice",
        "expired, then completed",
        lambda: changed(GOOD, events=(*GOOD.events[:2], event(3, "expired"), event(4, "completed"))),
    ),
    (
        "ended twice",
        "one id, by another attempt",
        lambda: changed(GOOD, events=(*GOOD.events, event(3, "completed", attempt=2, billed=1))),
    ),
    (
        "two results",
        "one id, another answer",
        lambda: changed(
            GOOD, results=(*GOOD.results, replace(GOOD.results[0], answer=f"This answers {NAME} by call alpha-2."))
        ),
    ),
    (
        "two results",
        "another id",
        lambda: changed(GOOD, results=(*GOOD.results, replace(GOOD.results[0], ce_id="another"))),
    ),
    (
        "two accounts of the end",
        "result failed, event completed",
        lambda: changed(GOOD, results=(replace(GOOD.results[0], status="failed"),)),
    ),
    (
        "moved after its end",
        "processed anew",
        lambda: changed(GOOD, events=(*GOOD.events, event(4, "processing", attempt=1))),
    ),
    (
        "version used twice",
        "queued and processing",
        lambda: changed(GOOD, events=(*GOOD.events, event(2, "queued", ce_id="another"))),
    ),
    (
        "impossible change",
        "queued to completed",
        lambda: changed(GOOD, events=(event(1, "queued"), event(2, "queued"), event(3, "completed"))),
    ),
    (
        "superseded attempt won",
        "a zombie settled",
        lambda: changed(
            CALLED_TWICE,
            events=(*CALLED_TWICE.events[:3], event(4, "completed", attempt=1, billed=1)),
        ),
    ),
    (
        "attempt told in two ways",
        "lost and answered",
        lambda: changed(CALLED_TWICE, attempts=(*CALLED_TWICE.attempts, attempt(1, "answered", call="alpha-1"))),
    ),
    ("attempt not recorded", "only in the result", lambda: changed(CALLED_TWICE, attempts=(SECOND,))),
    (
        "unflagged call",
        "lost and not admitted",
        lambda: with_attempts(CALLED_TWICE, replace(LOST, possibly_billed=False), SECOND),
    ),
    ("unflagged call", "no record at all", lambda: changed(GOOD, calls=(*GOOD.calls, call("alpha-9")))),
    (
        "unflagged call",
        "two calls, one flag",
        lambda: changed(CALLED_TWICE, calls=(*CALLED_TWICE.calls, call("alpha-3", status=None))),
    ),
    (
        "unflagged call",
        "broken off in the middle, called free",
        lambda: with_attempts(
            changed(CALLED_TWICE, calls=(call("alpha-1", status="cut"), call("alpha-2"))),
            attempt(1, "failed", call="alpha-1"),
            SECOND,
        ),
    ),
    (
        "unflagged call",
        "answered twice",
        lambda: with_attempts(CALLED_TWICE, attempt(1, "answered", call="alpha-1"), SECOND),
    ),
    (
        "unflagged call",
        "answered, and expired all the same",
        lambda: changed(
            GOOD,
            events=(*GOOD.events[:2], event(3, "expired")),
            results=(replace(GOOD.results[0], status="expired", answer=None),),
        ),
    ),
    (
        "flags miscounted",
        "by the result",
        lambda: changed(CALLED_TWICE, results=(replace(CALLED_TWICE.results[0], possibly_billed_calls=0),)),
    ),
    (
        "flags miscounted",
        "by both",
        lambda: changed(
            CALLED_TWICE,
            results=(replace(CALLED_TWICE.results[0], possibly_billed_calls=2),),
            events=(*CALLED_TWICE.events[:3], event(4, "completed", attempt=2, billed=2)),
        ),
    ),
    (
        "flags miscounted",
        "by the event",
        lambda: changed(CALLED_TWICE, events=(*CALLED_TWICE.events[:3], event(4, "completed", attempt=2, billed=3))),
    ),
    (
        "answer of somebody else",
        "names another request",
        lambda: changed(GOOD, results=(replace(GOOD.results[0], answer="This answers chaos-000008 by call alpha-1."),)),
    ),
    (
        "answer of somebody else",
        "names another call",
        lambda: changed(GOOD, results=(replace(GOOD.results[0], answer=f"This answers {NAME} by call alpha-2."),)),
    ),
    (
        "answer of somebody else",
        "made up",
        lambda: changed(GOOD, results=(replace(GOOD.results[0], answer="Essay A"),)),
    ),
    (
        "answer of somebody else",
        "from a call that brought none",
        lambda: changed(GOOD, calls=(call("alpha-1", status=500),)),
    ),
    ("called elsewhere", "pinned", lambda: sent(GOOD, provider="beta")),
    ("called again against its will", "after a lost call", lambda: sent(CALLED_TWICE, fail_when_lost=True)),
    (
        "too many calls",
        "five",
        lambda: with_attempts(
            changed(GOOD, calls=tuple(call(f"alpha-{n}", status=429) for n in range(2, 6)) + GOOD.calls),
            *(attempt(n, "failed", call=f"alpha-{n}") for n in range(2, 6)),
            replace(ANSWERED, number=6),
        ),
    ),
    ("never sent", "an unknown id", lambda: changed(GOOD, sent=())),
    ("records left unread", "in a lane", lambda: changed(GOOD, unread=(("llm.lane.alpha.normal", 2),))),
    ("counted still", "after the end", lambda: changed(GOOD, counted_still=1)),
]


@pytest.mark.parametrize(("finding", "faulty"), [(f[0], f[2]) for f in FAULTS], ids=[f"{f[0]}: {f[1]}" for f in FAULTS])
def test_each_fault_is_found(finding: str, faulty: Callable[[], Logs]) -> None:
    """By its name. What follows from it (a second end has a second account) may be found beside it."""
    verdict = check(faulty())
    assert verdict.findings.get(finding)
    assert not verdict.is_clean


def test_every_finding_has_a_case() -> None:
    """A promise that no test breaks may go unchecked."""
    assert {name for name, _, _ in FAULTS} == set(FINDINGS)


def test_wishes_that_were_granted_are_no_findings() -> None:
    """Called where it was pinned to; not called again, for nothing was lost."""
    assert check(sent(GOOD, provider="alpha", fail_when_lost=True)).findings == {}
    assert check(sent(AFTER_A_RETRY, fail_when_lost=True)).findings == {}


def test_ends_results_and_calls_are_spread_by_how_many_there_are() -> None:
    """None, one, or more: of a request, of a request, and of an attempt."""
    good = check(GOOD)
    assert (good.ends, good.results, good.calls) == ({1: 1}, {1: 1}, {0: 0, 1: 1, 2: 0})
    lost = check(changed(GOOD, events=GOOD.events[:2], results=()))
    assert (lost.ends, lost.results) == ({0: 1}, {0: 1})
    again = (replace(GOOD.events[2], version=9, ce_id="again"),)
    assert check(changed(GOOD, events=GOOD.events + again)).ends == {2: 1}
    assert check(CALLED_TWICE).calls == {0: 0, 1: 2, 2: 0}
    assert check(changed(CALLED_TWICE, calls=CALLED_TWICE.calls[1:])).calls == {0: 1, 1: 1, 2: 0}
    assert check(changed(GOOD, calls=(*GOOD.calls, call("alpha-9")))).calls == {0: 0, 1: 0, 2: 1}


def test_a_flag_without_a_call_is_a_count_only() -> None:
    """A worker may die between its claim and its call: nobody can know, so it is flagged."""
    verdict = check(changed(CALLED_TWICE, calls=CALLED_TWICE.calls[1:]))
    assert verdict.findings == {}
    assert verdict.counts["flags without a call"] == 1


def test_a_recorded_refusal_needs_no_flag_and_an_unrecorded_one_does() -> None:
    """Where the answer did not arrive, nobody knows that it was a refusal."""
    assert check(AFTER_A_RETRY).is_clean
    lost_refusal = changed(GOOD, calls=(call("alpha-9", status=503), *GOOD.calls))
    assert check(lost_refusal).findings.keys() == {"unflagged call"}


def test_an_end_without_a_call_of_its_own_names_the_last_call_that_was_made() -> None:
    """Attempt 2 was claimed, and its deadline had passed: nothing was superseded."""
    expired = logs(
        events=(*CALLED_TWICE.events[:3], event(4, "expired", attempt=1, billed=1)),
        attempts=(LOST,),
        calls=(call("alpha-1", status="gone"),),
        results=(result(4, "expired", (LOST,)),),
    )
    assert check(expired).findings == {}


def test_what_a_sender_asked_for_is_counted() -> None:
    """Deadlines and cancellations that came too late to matter."""
    verdict: Verdict = check(sent(GOOD, deadline=80.0, cancel_asked=70.0, answered=100.0))
    assert verdict.counts["ended over 1 s after their deadline"] == 1
    assert verdict.counts["calls begun after their deadline"] == 1
    assert verdict.counts["called over 1 s after they were cancelled"] == 1


def test_calls_at_once_are_counted_for_each_provider() -> None:
    """A shared limit that leaks would show here."""
    calls = (call("alpha-1", begun=90.0), call("alpha-2", begun=90.5), call("alpha-3", begun=95.0))
    assert check(changed(GOOD, calls=calls)).counts["calls at once at alpha"] == 2


def test_late_events_and_gaps_are_counted_and_not_found() -> None:
    """Order is in the version. Events come from several processes, and versions have gaps."""
    queued, processing, completed = GOOD.events
    shuffled = replace(GOOD, events=(replace(queued, order=9), processing, completed))
    gap = replace(GOOD, events=(replace(queued, version=1, ce_id="x"), processing, replace(completed, version=30)))
    gap = replace(gap, results=(replace(GOOD.results[0], version=30),))
    assert check(shuffled).findings == {}
    assert check(shuffled).counts["events that came after a later one"] == 1
    assert check(gap).findings == {}
    assert check(gap).counts["gaps between versions"] == 1
