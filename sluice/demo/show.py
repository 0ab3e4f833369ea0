"""The demo's outcome for people: the essays by wins, how the requests ended, and what the pipeline itself took."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from schemas.vocabulary import State
from sluice.demo.report import Report

TITLE_WIDTH = 46


def show(report: Report, console: Console) -> None:
    """Prints it. Fits 80 columns: long titles are cut, so that each essay has one line."""
    if report.completed:
        console.print(_ranking(report))
        console.print()
    console.print(_ends(report))
    for category, count, message in report.problems():
        console.print(f"  {count} x {category}: {escape(message)}", style="red", soft_wrap=True)
    if report.results:
        overhead = report.overhead_ms()
        console.print(
            f"Pipeline overhead: p50 [bold]{overhead['p50']:.0f} ms[/], p95 [bold]{overhead['p95']:.0f} ms[/] "
            "[dim](total less the provider's time)[/]"
        )


def _ranking(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("essay", no_wrap=True)
    table.add_column("author", no_wrap=True)
    table.add_column("title", no_wrap=True, overflow="ellipsis", max_width=TITLE_WIDTH)
    table.add_column("wins", justify="right", no_wrap=True)
    for place, standing in enumerate(report.standings, start=1):
        essay = standing.essay
        wins = f"{standing.wins} of {standing.comparisons}"
        table.add_row(str(place), essay.label, essay.author, essay.title, wins)
    return table


def _ends(report: Report) -> str:
    line = f"[bold]{report.completed} of {report.requests} completed[/]"
    others = sorted((state, count) for state, count in report.states().items() if state is not State.COMPLETED)
    line += "".join(f", [red]{count} {state}[/]" for state, count in others)
    line += f", [red]{report.lost} without a result[/]" if report.lost else ", none lost"
    if report.duplicate_terminal_events:
        line += f", [red]{report.duplicate_terminal_events} ended twice[/]"
    return f"{line}, {report.requests_per_second} a second."
