"""`sluice demo`: the whole system on this machine, comparing real essays, live in a browser."""

import asyncio
import json
import shutil
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer
from pydantic import SecretStr
from rich.console import Console

from connectors.settings import Settings
from sluice import stack
from sluice.commands.endings import fail, kafka_problems, misused
from sluice.commands.interrupts import Interrupts
from sluice.commands.loading import catalogue_or_exit, configure_command_logs, settings_or_exit
from sluice.demo.essays import Essay, read_essays
from sluice.demo.plan import DemoProvider, Plan, PlanError, write_catalogue
from sluice.demo.report import Report
from sluice.demo.run import run_demo
from sluice.demo.show import show
from sluice.demo.system import DemoSystem, TopicsError, demo_system
from sluice.role_process import RoleFailedError
from sluice.stack import locations
from sluice.stack.processes import tail

PARTITIONS = 3
LOGS = "logs"
CHECK_SECONDS = 0.5
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
    and what the pipeline itself took. Topics and processes are of this run alone, and gone afterwards.

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
      2    called wrongly, or the settings are not valid
      130  interrupted
    """
    plan = Plan(
        run=f"demo-{uuid4().hex[:8]}",
        essays=_essays()[:essays],
        provider=provider,
        model=model,
        latency_ms=latency,
        concurrency=concurrency,
        rate=rate,
        timeout_seconds=timeout,
        keep=keep,
        open_page=open_page,
    )
    base = settings_or_exit()
    configure_command_logs(base, command="demo")
    provider_settings = _checked(plan)
    notes = Console(stderr=True, highlight=False)
    folder = locations.state_dir() / "demo" / plan.run
    with Interrupts(on_interrupt=lambda: notes.print("\nStopping ...")) as interrupts:
        try:
            with stack.start(on_progress=lambda line: notes.print(line, style="dim", markup=False)) as running:
                settings = _settings(base, plan, running, folder, provider_settings)
                with kafka_problems(settings, code=EXIT_FAILED):
                    report = interrupts.run(_run(settings, plan, running, folder, notes, as_json=as_json))
        except (stack.StackError, TopicsError, RoleFailedError, _StackAwayError, OSError) as error:
            fail(str(error), EXIT_FAILED)
        except KeyboardInterrupt:
            shutil.rmtree(folder, ignore_errors=True)
            fail("Interrupted; everything that was started is stopped.", EXIT_INTERRUPTED)
    if not report.is_good:
        fail(f"The logs are in {folder / LOGS}.", EXIT_FAILED)
    shutil.rmtree(folder, ignore_errors=True)


class _StackAwayError(Exception):
    """Kafka or Redis has ended in the middle of a run."""


def _essays() -> list[Essay]:
    try:
        return read_essays()
    except (OSError, ValueError) as error:
        fail(f"The demo's essays cannot be read: {error}", EXIT_FAILED)


def _checked(plan: Plan) -> dict[str, object]:
    try:
        return plan.settings_of_provider()
    except PlanError as error:
        misused(str(error))


def _settings(
    base: Settings, plan: Plan, running: stack.RunningStack, folder: Path, provider_settings: dict[str, object]
) -> Settings:
    """Those in force, with what is this run's own."""
    (folder / LOGS).mkdir(parents=True)
    providers_file = folder / "providers.toml"
    write_catalogue(providers_file, plan.provider, provider_settings)
    own = {
        "kafka_bootstrap": running.kafka_bootstrap,
        "redis_url": SecretStr(running.redis_url),
        "topic_prefix": plan.topic_prefix,
        "topic_partitions": PARTITIONS,
        "providers_file": providers_file,
    }
    return base.model_copy(update=own)


async def _run(
    settings: Settings, plan: Plan, running: stack.RunningStack, folder: Path, notes: Console, *, as_json: bool
) -> Report:
    catalogue = catalogue_or_exit(settings)

    def check_stack() -> None:
        _check_stack(running)

    async with demo_system(
        settings, catalogue, provider=plan.provider, log_folder=folder / LOGS, check=check_stack
    ) as system:
        _announce(system.page_url, notes, open_page=plan.open_page)

        def check() -> None:
            check_stack()
            system.check()

        report = await run_demo(settings, plan, notes, check=check)
        if as_json:
            typer.echo(json.dumps(report.as_json()))
        else:
            show(report, Console(highlight=False))
        if plan.keep:
            _tell_how_to_go_on(settings, system, notes)
            await _until_interrupted(check)
        return report


async def _until_interrupted(check: Callable[[], None]) -> None:
    """With --keep Ctrl-C is the way to end, and not a failure."""
    task = asyncio.current_task()
    try:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            check()
    except asyncio.CancelledError:
        if task is not None:
            task.uncancel()


def _check_stack(running: stack.RunningStack) -> None:
    for service in running.away():
        log_path = service.log_path()
        end_of_log = f" The end of {log_path}:\n{tail(log_path)}" if log_path else ""
        raise _StackAwayError(f"{service.name.label} {service.condition()}.{end_of_log}")


def _announce(page_url: str, notes: Console, *, open_page: bool) -> None:
    notes.print(f"\nWatch it live: [bold link={page_url}]{page_url}[/]\n")
    if open_page and not webbrowser.open(page_url):
        notes.print("No browser could be opened here: open the page yourself.")


def _tell_how_to_go_on(settings: Settings, system: DemoSystem, notes: Console) -> None:
    notes.print(f"\nEverything stays up until Ctrl-C: [bold link={system.page_url}]{system.page_url}[/]")
    notes.print("Send more from another terminal:\n")
    notes.print(
        f"  export KAFKA_BOOTSTRAP={settings.kafka_bootstrap} SLUICE_TOPIC_PREFIX={settings.topic_prefix}",
        soft_wrap=True,
        markup=False,
    )
    notes.print('  sluice send "Say hello" --wait')
