"""A run's results as tables."""

from rich.console import Console
from rich.table import Table

from bench.fanout_run.results import Broadcasts, Memory, Pushes, Report


def show(report: Report, console: Console) -> None:
    """What was measured, and the aims."""
    console.print(_pushes(report.pushes))
    console.print(_broadcasts(report.broadcasts))
    console.print(_memory(report.memory))
    if report.aims:
        console.print(_aims(report))


def _pushes(found: list[Pushes]) -> Table:
    table = _table(
        "each event to one client: ms, and CPU ms of the server for 1,000 deliveries",
        "connections",
        "events/s",
        "way",
        "p50",
        "p95",
        "p99",
        "CPU",
        "p95 over floor + hop",
        "others' CPU",
    )
    for pushes in found:
        for way in pushes.blocks:
            latency, is_last = pushes.latency(way), way == list(pushes.blocks)[-1]
            table.add_row(
                f"{pushes.clients:,}",
                f"{pushes.rate:g}",
                way,
                *(f"{value:.2f}" for value in (latency.p50, latency.p95, latency.p99)),
                f"{pushes.cpu_ms_per_1000(way):g}" if pushes.cpu_ms_per_1000(way) else "",
                str(pushes.ratio) if is_last else "",
                f"{pushes.others_percent:g} %" if is_last else "",
                end_section=is_last,
            )
    return table


def _broadcasts(found: list[Broadcasts]) -> Table:
    columns = ("connections", "way", "p50", "p95", "CPU", "p50 over bare server", "others' CPU")
    table = _table("one event to all, until the last has it: ms, and CPU ms for 1,000 deliveries", *columns)
    for broadcasts in found:
        for way in broadcasts.blocks:
            latency, is_last = broadcasts.latency(way), way == list(broadcasts.blocks)[-1]
            table.add_row(
                f"{broadcasts.clients:,}",
                way,
                f"{latency.p50:.1f}",
                f"{latency.p95:.1f}",
                f"{broadcasts.cpu_ms_per_1000(way):g}",
                str(broadcasts.ratio) if is_last else "",
                f"{broadcasts.others_percent:g} %" if is_last else "",
                end_section=is_last,
            )
    return table


def _memory(found: list[Memory]) -> Table:
    table = _table("memory of one idle subscribed connection, bytes", "connections", *found[0].bytes_per_connection)
    for memory in found:
        table.add_row(f"{memory.clients:,}", *(f"{taken:,}" for taken in memory.bytes_per_connection.values()))
    return table


def _aims(report: Report) -> Table:
    table = _table("aims: median of the blocks (least - most)", "aim", "at most", "found", "")
    for aim in report.aims:
        table.add_row(aim.what, aim.bound, aim.found, "[green]met[/]" if aim.is_met else "[red]missed[/]")
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in {"way", "aim", ""} else "right")
    return table
