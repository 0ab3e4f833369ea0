"""`sluice demo`: the whole system on this machine, comparing real essays, live in a browser."""

import asyncio
import json
import os
import signal
import webbrowser
from typing import Annotated

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from connectors.logs import configure_logs
from connectors.providers.catalogue_file import load_catalogue
from connectors.settings import LogSettings, Settings
from policy.catalogue import CatalogueError
from sluice import stack
from sluice.commands.loading import misused
from sluice.demo.essays import read_essays
from sluice.demo.report import Report
from sluice.demo.run import DemoProvider, Plan, run_demo
from sluice.demo.system import PARTITIONS, PREFIX, demo_system, write_catalogue
from sluice.role_process import RoleFailedError
from sluice.stack import locations

DEFAULT_OPENAI_MODEL = "gpt-5.4-mini"
PIECES_OF_AN_ANSWER = 60
"""So many pieces a simulated comparison has: their pace makes up the latency that was asked for."""
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


def demo(
    *,
    provider: Annotated[
        DemoProvider, typer.Option(help="Who judges; openai needs OPENAI_API_KEY or OPENAI_BASE_URL.")
    ] = DemoProvider.SIMULATED,
    model: Annotated[str | None, typer.Option(help="The openai model.", show_default=False)] = None,
    essays: Annotated[int, typer.Option(help="How many essays; n essays make n(n-1)/2 requests.", min=2, max=12)] = 12,
    latency: Annotated[float, typer.Option(help="Mean latency of the simulated provider, in ms.", min=0)] = 900.0,
    rate: Annotated[float, typer.Option(help="Requests sent per second.", min=0.1, max=1000)] = 6.0,
    concurrency: Annotated[int, typer.Option(help="Calls at once.", min=1, max=256)] = 32,
    timeout: Annotated[float, typer.Option(help="Give up after this many seconds.", min=1)] = 300.0,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything up afterwards, until Ctrl-C.")] = False,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Compare essays of the Federalist, all pairs of them, and rank them by wins.

    Starts a local Kafka and Redis (as `sluice up` does), the intake, a lane and the bridge; sends one comparison for
    each pair; shows progress here and each request live on a page; and prints the ranking, how each request ended,
    and what the pipeline itself took.

    \b
    Examples:
      sluice demo
      sluice demo --open --rate 2           slow enough to watch
      sluice demo --keep                    look at the page afterwards
      sluice demo --rate 100 --json | jq .overhead_ms
      OPENAI_API_KEY=... sluice demo --provider openai --essays 4

    \b
    Exit codes:
      0    every request completed
      1    some did not, or something could not start
      130  interrupted
    """
    quiet = Console(stderr=True, highlight=False, quiet=as_json)
    plan = Plan(
        essays=read_essays()[:essays],
        provider=provider,
        model=model,
        rate=rate,
        timeout_seconds=timeout,
        keep=keep,
        open_page=open_page,
    )
    configure_logs(LogSettings(level="error", format="console"), role="demo")
    try:
        # Container runtimes and `timeout` end with SIGTERM: it takes the same way as Ctrl-C.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with stack.start(on_progress=lambda line: quiet.print(f"[dim]{line}[/]")) as running:
            report = _run_on(running, plan, _provider_lines(plan, latency, concurrency), quiet, as_json=as_json)
    except (stack.StackError, RoleFailedError) as error:
        Console(stderr=True, highlight=False).print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_FAILED) from None
    except KeyboardInterrupt:
        quiet.print("Interrupted; everything that was started is stopped.")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    good = report.completed == report.requests and not report.duplicate_terminal_events
    raise typer.Exit(0 if good else EXIT_FAILED)


def _run_on(
    running: stack.RunningStack, plan: Plan, lines: dict[str, object], console: Console, *, as_json: bool
) -> Report:
    folder = locations.state_dir() / "demo"
    providers_file = folder / "providers.toml"
    write_catalogue(providers_file, plan.provider, lines)
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    settings = Settings(
        kafka_bootstrap=running.kafka_bootstrap,
        redis_url=SecretStr(running.redis_url),
        topic_prefix=PREFIX,
        topic_partitions=PARTITIONS,
        providers_file=providers_file,
    )
    try:
        catalogue = load_catalogue(providers_file)
    except CatalogueError as error:
        misused(str(error))

    async def whole() -> Report:
        async with demo_system(settings, catalogue, provider=plan.provider, log_folder=folder / "logs") as system:
            _announce(system.page_url, console, open_page=plan.open_page)
            report = await run_demo(settings, plan, console)
            if as_json:
                typer.echo(json.dumps(report.as_json()))
            else:
                _show(report)
            if plan.keep:
                console.print(f"Everything stays up until Ctrl-C. The page: [link]{system.page_url}[/]")
                await asyncio.Event().wait()
            return report

    return asyncio.run(whole())


def _provider_lines(plan: Plan, latency_ms: float, concurrency: int) -> dict[str, object]:
    """The demo's `providers.toml`, as dotted names and values."""
    if plan.provider is DemoProvider.SIMULATED:
        return {
            "type": "simulated",
            "models": ["reading-ease-1"],
            "local": True,
            "concurrency": concurrency,
            "options.first_token_ms": latency_ms / 3,
            "options.tokens_per_second": PIECES_OF_AN_ANSWER / max(latency_ms / 1000, 0.001),
        }
    base_url = os.environ.get("OPENAI_BASE_URL")
    if not base_url and not os.environ.get("OPENAI_API_KEY"):
        misused("--provider openai needs OPENAI_API_KEY, or OPENAI_BASE_URL for a server of your own")
    return {
        "type": "openai",
        "models": [plan.model or DEFAULT_OPENAI_MODEL],
        "base_url": base_url or "https://api.openai.com/v1",
        "concurrency": concurrency,
        **({"api_key_env": "OPENAI_API_KEY"} if os.environ.get("OPENAI_API_KEY") else {}),
    }


def _announce(page_url: str, console: Console, *, open_page: bool) -> None:
    console.print(f"\nWatch it live: [bold link={page_url}]{page_url}[/]\n")
    if open_page:
        webbrowser.open(page_url)


def _show(report: Report) -> None:
    console = Console(highlight=False)
    table = Table(title="The essays, by wins", title_justify="left")
    for name, justify in (("", "right"), ("essay", "left"), ("author", "left"), ("title", "left"), ("wins", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for place, standing in enumerate(report.standings, start=1):
        essay = standing.essay
        table.add_row(str(place), essay.label, essay.author, essay.title, f"{standing.wins} of {standing.comparisons}")
    console.print(table)
    states = ", ".join(f"{count} {state}" for state, count in sorted(report.states().items()))
    overhead = report.overhead_ms()
    console.print(f"{report.completed} of {report.requests} completed ({states or 'none ended'}); {report.lost} lost;")
    console.print(f"{report.duplicate_terminal_events} second terminal events.")
    console.print(
        f"The pipeline's own share of the time: p50 {overhead['p50']} ms, p95 {overhead['p95']} ms "
        "(submitted until settled, less the provider's time)."
    )
