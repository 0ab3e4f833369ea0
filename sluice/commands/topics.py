"""`sluice topics`: create the topics of this deployment, and say how they stand."""

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import asdict
from typing import Annotated

import typer
from aiokafka.errors import KafkaError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from connectors.kafka.access import KafkaAccessError, check_access
from connectors.kafka.topics_admin import TopicOutcome, TopicStatus, create_topics, describe
from connectors.settings import Settings
from connectors.tls import TlsFileError
from schemas.topics import DAY_MS, HOUR_MS, MIB, TopicSpec
from sluice.commands.loading import catalogue_or_exit, settings_or_exit

EXIT_FAILED = 1
EXIT_DIFFERS = 3
_WIDTH_WITHOUT_TERMINAL = 200
_COLOURS = {
    TopicStatus.CREATED: "green",
    TopicStatus.EXISTING: "green",
    TopicStatus.DIFFERS: "yellow",
    TopicStatus.MISSING: "yellow",
    TopicStatus.FAILED: "red",
}

app = typer.Typer(no_args_is_help=True, help="Create the topics of this deployment, and say how they stand.")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def create(
    *,
    partitions: Annotated[
        int | None, typer.Option(help="Per topic, in place of SLUICE_TOPIC_PARTITIONS.", min=1, max=1000)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only ask the brokers whether they would.")] = False,
    as_json: AsJson = False,
) -> None:
    """Create what is missing, with the stated partitions, retention, compaction and size.

    A topic that exists is left as it is; where it differs, the difference is told. Run it as often as you like.

    \b
    Examples:
      sluice topics create
      sluice topics create --partitions 24
      sluice topics create --dry-run --json | jq '.topics[] | select(.status == "missing").name'

    \b
    Exit codes:
      0  every topic is there as stated (with --dry-run: or could be created)
      1  a topic could not be created, or Kafka could not be used
      2  called wrongly, or the settings are not valid
      3  a topic exists and differs; nothing was altered
    """
    settings, specs = _wanted(partitions)
    outcomes = _on_kafka(settings, create_topics(settings, specs, dry_run=dry_run))
    _show(specs, outcomes, as_json=as_json)
    statuses = {outcome.status for outcome in outcomes}
    if TopicStatus.FAILED in statuses:
        raise typer.Exit(EXIT_FAILED)
    if TopicStatus.DIFFERS in statuses:
        raise typer.Exit(EXIT_DIFFERS)


@app.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """List the topics of this deployment: what each holds and promises, and how it stands in Kafka.

    \b
    Examples:
      sluice topics list
      sluice topics list --json | jq -r '.topics[].name'

    \b
    Exit codes:
      0  every topic is there as stated
      1  Kafka could not be used
      2  called wrongly, or the settings are not valid
      3  a topic is missing or differs
    """
    settings, specs = _wanted(None)
    outcomes = _on_kafka(settings, describe(settings, specs))
    _show(specs, outcomes, as_json=as_json)
    if any(outcome.status is not TopicStatus.EXISTING for outcome in outcomes):
        raise typer.Exit(EXIT_DIFFERS)


def _wanted(partitions: int | None) -> tuple[Settings, list[TopicSpec]]:
    settings = settings_or_exit()
    if partitions is not None:
        settings = settings.model_copy(update={"topic_partitions": partitions})
    return settings, settings.topics.specs(list(catalogue_or_exit(settings).providers))


def _on_kafka(settings: Settings, work: Coroutine[None, None, list[TopicOutcome]]) -> list[TopicOutcome]:
    async def checked() -> list[TopicOutcome]:
        try:
            await check_access(settings)
        except BaseException:
            work.close()
            raise
        return await work

    try:
        return asyncio.run(checked())
    except (KafkaAccessError, TlsFileError, KafkaError, TimeoutError) as error:
        message = str(error) or "Kafka did not answer in time."
        Console(stderr=True).print(message, style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_FAILED) from None


def _show(specs: list[TopicSpec], outcomes: list[TopicOutcome], *, as_json: bool) -> None:
    pairs = list(zip(specs, outcomes, strict=True))
    if as_json:
        typer.echo(json.dumps({"topics": [_as_json(spec, outcome) for spec, outcome in pairs]}, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("TOPIC", no_wrap=True)
    table.add_column("STATE")
    for heading in ("PARTITIONS", "KEPT", "LARGEST"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("VALUE", overflow="fold")
    for spec, outcome in pairs:
        table.add_row(
            spec.name,
            Text(outcome.status, style=_COLOURS[outcome.status]),
            str(spec.partitions),
            _kept(spec),
            f"{spec.max_message_bytes // MIB} MiB",
            spec.record.__name__ if spec.record else "as it came",
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_WITHOUT_TERMINAL
    console.print(table)
    for line in (line for outcome in outcomes for line in _details(outcome)):
        console.print(line, markup=False, soft_wrap=True)


def _as_json(spec: TopicSpec, outcome: TopicOutcome) -> dict[str, object]:
    return {
        **asdict(outcome),
        "record": spec.record.__name__ if spec.record else None,
        "description": spec.description,
        "partitions": spec.partitions,
        "config": spec.config,
    }


def _kept(spec: TopicSpec) -> str:
    days = spec.retention_ms / DAY_MS
    time = f"{days:g} d" if days >= 1 else f"{spec.retention_ms / HOUR_MS:g} h"
    return f"{time}, compacted" if "compact" in spec.cleanup else time


def _details(outcome: TopicOutcome) -> list[str]:
    lines = [f"{outcome.name}: {outcome.problem}"] if outcome.problem is not None else []
    return lines + [
        f"{outcome.name}: {difference.setting} is {difference.found}, stated is {difference.wanted}"
        for difference in outcome.differences
    ]
