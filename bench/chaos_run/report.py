"""A run's outcome for people, and for programs.

For people the verdict comes first and last, then what was found, then what was done, then what was seen.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.chaos_run.checker import BAR, FINDINGS, Verdict
from bench.chaos_run.rounds import Outcome

SHOWN = 5
SUMMED_UP = frozenset(
    {
        "terminal events, raw",
        "terminal events, by id",
        "results, raw",
        "results, by id",
        "calls",
        "flags",
        "flags with a call",
        "flags without a call",
    }
)
"""Counts that have a line of their own."""


def show(outcome: Outcome, console: Console) -> None:
    """The whole account. Findings with their first cases; `--json` has them all."""
    _show_verdict(outcome, console)
    _show_findings(outcome, console)
    _show_rounds(outcome, console)
    _show_accounts(outcome.verdict, console)
    _show_counts(outcome.verdict, console)
    _show_verdict(outcome, console)


def _show_verdict(outcome: Outcome, console: Console) -> None:
    options, verdict = outcome.options, outcome.verdict
    console.print(
        f"\n{options.requests:,} requests, {len(outcome.rounds)} rounds, seed {options.seed}, {outcome.seconds:.0f} s",
        highlight=False,
    )
    others = sum(verdict.count_of(name) for name in FINDINGS if name not in BAR)
    for words, number in [*((BAR[name], verdict.count_of(name)) for name in BAR), ("other broken promises", others)]:
        console.print(f"  {number:5}  {words}", style="bold red" if number else "", highlight=False)
    if outcome.accidents:
        console.print(f"  {len(outcome.accidents):5}  accidents: nobody had killed these processes", style="yellow")
    passed = outcome.is_passed
    console.print("PASSED" if passed else "FAILED", style="bold green" if passed else "bold red")


def _show_findings(outcome: Outcome, console: Console) -> None:
    for name, meaning in FINDINGS.items():
        cases = outcome.verdict.findings.get(name, [])
        if not cases:
            continue
        console.print(f"\n{name}: {len(cases)}  ({meaning})", style="red", markup=False)
        for case in cases[:SHOWN]:
            console.print(f"    {case}", markup=False, highlight=False, soft_wrap=True)
        if len(cases) > SHOWN:
            console.print(f"    and {len(cases) - SHOWN} more")
        struck = ", ".join(
            f"{count} in round {number} ({outcome.rounds[number - 1].fault})"
            for number, count in sorted(_rounds_of(cases, outcome).items())
        )
        console.print(f"    sent: {struck}", highlight=False, soft_wrap=True)
    _show_what_was_done(outcome, console)
    for accident in outcome.accidents:
        console.print(f"\naccident: {accident}", markup=False, highlight=False, soft_wrap=True)


def _show_what_was_done(outcome: Outcome, console: Console) -> None:
    """In the rounds whose requests have findings, and those after them, which struck what was still there."""
    cases = [case for found in outcome.verdict.findings.values() for case in found]
    numbers = _rounds_of(cases, outcome).keys()
    for one in outcome.rounds:
        if {one.number, one.number - 1} & numbers:
            console.print(f"\nround {one.number}, {one.fault} (times are UTC, as in the logs):", highlight=False)
            for what in one.did:
                console.print(f"    {what}", markup=False, highlight=False, soft_wrap=True)


def _rounds_of(cases: Sequence[str], outcome: Outcome) -> Counter[int]:
    """In which rounds those requests were sent that the cases begin with."""
    rounds = {sent.request_id: sent.round for sent in outcome.logs.sent if sent.round}
    named = (case.split(":")[0].split(" ")[0] for case in cases)
    return Counter(rounds[name] for name in named if name in rounds)


def _show_rounds(outcome: Outcome, console: Console) -> None:
    rounds = Table(title="rounds")
    for column in ("", "fault", "s", "sent in all", "outstanding after"):
        rounds.add_column(column, justify="left" if column == "fault" else "right")
    for one in outcome.rounds:
        rounds.add_row(f"{one.number}", one.fault, f"{one.seconds:.1f}", f"{one.sent}", f"{one.outstanding}")
    console.print()
    console.print(rounds)


def _show_accounts(verdict: Verdict, console: Console) -> None:
    """What was promised, in figures: each line adds up."""
    counts = verdict.counts
    accounts = Table(title="accounts", show_header=False)
    accounts.add_column()
    accounts.add_column()
    accounts.add_row("ended as", ", ".join(f"{state} {number}" for state, number in sorted(verdict.states.items())))
    accounts.add_row("terminal states per request", _spread(verdict.ends))
    accounts.add_row("terminal events", _repeats(counts, "terminal events", requests=counts["requests"]))
    accounts.add_row("results per request", _spread(verdict.results))
    accounts.add_row("results", _repeats(counts, "results", requests=counts["requests"]))
    accounts.add_row("provider calls", f"{counts['calls']} in the providers' journals")
    accounts.add_row("calls per attempt", _spread(verdict.calls))
    accounts.add_row(
        "possibly billed",
        f"{counts['flags']} flags: {counts['flags with a call']} with a call behind them, "
        f"{counts['flags without a call']} to be safe; {verdict.count_of('unflagged call')} missing",
    )
    console.print(accounts)


def _show_counts(verdict: Verdict, console: Console) -> None:
    others = Table(title="also counted", show_header=False)
    others.add_column()
    others.add_column(justify="right")
    for name, number in verdict.counts.items():
        if name not in SUMMED_UP:
            others.add_row(name, f"{number}")
    console.print(others)


def _spread(spread: Counter[int]) -> str:
    """`0: none, 1: 1990, 2: 10`: how many have none, one, two."""
    numbers = sorted({0, 1, 2} | spread.keys())
    return ", ".join(f"{number}: {spread[number] or 'none'}" for number in numbers)


def _repeats(counts: Counter[str], what: str, *, requests: int) -> str:
    raw, by_id = counts[f"{what}, raw"], counts[f"{what}, by id"]
    return f"{raw} raw, {by_id} by id, of {requests} requests: {raw - by_id} repeats that say the same"


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Everything but the logs themselves."""
    verdict = outcome.verdict
    return {
        "passed": outcome.is_passed,
        "bar": {words: verdict.count_of(name) for name, words in BAR.items()},
        "seed": outcome.options.seed,
        "requests": outcome.options.requests,
        "seconds": round(outcome.seconds, 1),
        "findings": {name: verdict.findings.get(name, []) for name in FINDINGS},
        "states": dict(verdict.states),
        "terminal_states_per_request": dict(verdict.ends),
        "results_per_request": dict(verdict.results),
        "calls_per_attempt": dict(verdict.calls),
        "counts": dict(verdict.counts),
        "rounds": [
            {
                "fault": r.fault,
                "did": list(r.did),
                "seconds": round(r.seconds, 1),
                "sent": r.sent,
                "outstanding": r.outstanding,
            }
            for r in outcome.rounds
        ],
        "accidents": outcome.accidents,
    }
