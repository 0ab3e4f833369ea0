"""A run's outcome for people, and for programs."""

from typing import Any

from rich.console import Console
from rich.table import Table

from bench.chaos_run.checker import FINDINGS
from bench.chaos_run.rounds import Outcome

SHOWN = 5


def show(outcome: Outcome, console: Console) -> None:
    """Counts, how requests ended, and each finding with its first cases."""
    verdict = outcome.verdict
    counts = Table(title=f"{outcome.options.requests} requests, {len(outcome.rounds)} rounds, {outcome.seconds:.0f} s")
    counts.add_column("count")
    counts.add_column("", justify="right")
    for name, number in verdict.counts.items():
        counts.add_row(name, f"{number}")
    console.print(counts)
    console.print("ended as: " + ", ".join(f"{state} {number}" for state, number in sorted(verdict.states.items())))
    for accident in outcome.accidents:
        console.print(f"accident: {accident}", markup=False, highlight=False)
    for name, meaning in FINDINGS.items():
        cases = verdict.findings.get(name, [])
        if not cases:
            continue
        console.print(f"\n{name}: {len(cases)}  ({meaning})", style="red", markup=False)
        for case in cases[:SHOWN]:
            console.print(f"    {case}", markup=False, highlight=False, soft_wrap=True)
        if len(cases) > SHOWN:
            console.print(f"    and {len(cases) - SHOWN} more")
    lost, twice, unflagged = (len(verdict.findings.get(n, ())) for n in ("lost", "ended twice", "unflagged call"))
    console.print(f"\n{lost} lost, {twice} ended twice, {unflagged} unflagged calls", style="bold")
    console.print("passed" if outcome.is_passed else "FAILED", style="bold green" if outcome.is_passed else "bold red")


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Everything but the logs themselves."""
    verdict = outcome.verdict
    return {
        "passed": outcome.is_passed,
        "seed": outcome.options.seed,
        "requests": outcome.options.requests,
        "seconds": round(outcome.seconds, 1),
        "findings": {name: verdict.findings.get(name, []) for name in FINDINGS},
        "counts": dict(verdict.counts),
        "states": dict(verdict.states),
        "rounds": [
            {"fault": r.fault, "seconds": round(r.seconds, 1), "sent": r.sent, "outstanding": r.outstanding}
            for r in outcome.rounds
        ],
        "accidents": outcome.accidents,
    }
