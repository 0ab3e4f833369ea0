"""`sluice dlq`: dead letters listed, shown, redriven and purged."""

import json
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from connectors.settings import Settings
from schemas.vocabulary import DeadLetterAction, FailureCategory
from sluice.commands.endings import fail, kafka_problems, misused, note
from sluice.commands.interrupts import Interrupts
from sluice.commands.loading import configure_command_logs, settings_or_exit, similar
from sluice.dlq.handling import Plan, plan
from sluice.dlq.job import EXIT_INTERRUPTED, Job, counted
from sluice.dlq.letters import LetterFilter, Position, StoredLetter
from sluice.dlq.mailbox import Found, Mailbox
from sluice.dlq.marks import Handled
from sluice.dlq.moments import parse_moment, parse_rate
from sluice.dlq.newest import newest
from sluice.dlq.redriving import refusal
from sluice.dlq.views import details, lines, row_json, table

EXIT_NOT_FOUND = 3
_WIDTH_WITHOUT_TERMINAL = 240

app = typer.Typer(no_args_is_help=True, help="List, show, redrive and purge dead letters.")
T = TypeVar("T")
Row = tuple[StoredLetter, Handled | None]

Ids = Annotated[list[str] | None, typer.Argument(help="Only these requests.", show_default=False)]
At = Annotated[list[str] | None, typer.Option(help="Only the letter at this PARTITION-OFFSET.", show_default=False)]
Category = Annotated[list[str] | None, typer.Option(help="Only those that failed so.", show_default=False)]
Provider = Annotated[list[str] | None, typer.Option(help="Only those of this provider.", show_default=False)]
Tenant = Annotated[list[str] | None, typer.Option(help="Only those of this tenant.", show_default=False)]
Model = Annotated[list[str] | None, typer.Option(help="Only those of this model.", show_default=False)]
Since = Annotated[
    str | None, typer.Option(help="Only what died then or later: 2h (ago), or 2026-11-20T08:00Z.", show_default=False)
]
Until = Annotated[str | None, typer.Option(help="Only what died before: as --since.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count. Nothing is written.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, however many there are.")]


@app.command("list")
def list_(
    request_ids: Ids = None,
    *,
    at: At = None,
    category: Category = None,
    provider: Provider = None,
    tenant: Tenant = None,
    model: Model = None,
    since: Since = None,
    until: Until = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those that were redriven or purged.")] = False,
    limit: Annotated[int, typer.Option(help="Show so many, newest first; count the rest.", min=0, max=10_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first.

    Filters can be given several times; each narrows the list, and values of the same one widen it.

    \b
    Examples:
      sluice dlq list
      sluice dlq list --since 2h --provider openai --category overloaded --category rate_limited
      sluice dlq list --json | jq -r '.letters[].request_id'

    \b
    Exit codes:
      0  listed, also where there are none
      2  called wrongly, or the settings are not valid
      4  Kafka could not be used, or the topics do not exist
    """
    wanted = _filter(
        request_ids, at=at, category=category, provider=provider, tenant=tenant, model=model, since=since, until=until
    )
    settings = _settings()

    async def read() -> tuple[list[Row], Counter[str]]:
        async with Mailbox(settings, writes=False) as mailbox:
            return await newest(mailbox, wanted, limit, kept=_row, everything=everything)

    rows, categories = _run(settings, read())
    total = categories.total()
    if as_json:
        shown = [row_json(*row) for row in rows]
        typer.echo(json.dumps({"letters": shown, "total": total, "categories": categories}, indent=2))
        return
    if rows:
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = _WIDTH_WITHOUT_TERMINAL
        console.print(table(rows))
    note(f"{counted(total, categories)}." if total else "No dead letters.")
    if total > len(rows):
        note(f"{total - len(rows):,} older ones are not shown: narrow it down, or give --limit.")


@app.command()
def show(
    request_ids: Ids = None,
    *,
    at: At = None,
    category: Category = None,
    provider: Provider = None,
    tenant: Tenant = None,
    model: Model = None,
    since: Since = None,
    until: Until = None,
    value: Annotated[
        bool, typer.Option("--value", help="Print the request as well: prompts are not for every eye.")
    ] = False,
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1, max=50)] = 10,
    as_json: AsJson = False,
) -> None:
    """Show dead letters whole: why, where from, headers, and what was done with them, by whom.

    \b
    Examples:
      sluice dlq show essay-7
      sluice dlq show --at 3-1204 --value
      sluice dlq show essay-7 --json | jq '.letters[0].message'

    \b
    Exit codes:
      0  shown
      2  called wrongly, or the settings are not valid
      3  there is no such letter
      4  Kafka could not be used, or the topics do not exist
    """
    wanted = _filter(
        request_ids, at=at, category=category, provider=provider, tenant=tenant, model=model, since=since, until=until
    )
    settings = _settings()

    async def read() -> list[dict[str, object]]:
        async with Mailbox(settings, writes=False) as mailbox:
            letters, _ = await newest(mailbox, wanted, limit, kept=lambda found: found, everything=True)
            marks = await mailbox.whole_marks({found.stored.position for found in letters})
            return [
                await details(found, marks.get(found.stored.position), mailbox.codec, with_value=value)
                for found in letters
            ]

    letters = _run(settings, read())
    if as_json:
        typer.echo(json.dumps({"letters": letters}, indent=2))
    else:
        typer.echo("\n\n".join("\n".join(lines(letter)) for letter in letters), nl=bool(letters))
    if not letters:
        fail("There is no such dead letter: `sluice dlq list --all` has those that there are.", EXIT_NOT_FOUND)


@app.command()
def redrive(
    request_ids: Ids = None,
    *,
    at: At = None,
    category: Category = None,
    provider: Provider = None,
    tenant: Tenant = None,
    model: Model = None,
    since: Since = None,
    until: Until = None,
    rate: Annotated[
        str | None, typer.Option(help="At most so many: 5/s, 300/m, 1000/h.", show_default="as fast as it goes")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many in all.", min=1, show_default=False)] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters back to the topic of requests, byte for byte, as a new life of the same request.

    A letter is marked as redriven when Kafka has its request. If the command dies between the two, the letter is
    listed again; redriven again it has the same redrive count, and intake ignores it as a duplicate.

    \b
    Examples:
      sluice dlq redrive essay-7
      sluice dlq redrive --provider openai --since 2h --dry-run
      sluice dlq redrive --provider openai --since 2h --limit 5 --yes
      sluice dlq redrive --category overloaded --rate 10/s

    \b
    Exit codes:
      0    all were redriven, also where there were none
      1    some cannot be redriven; each is named with the reason
      2    called wrongly, or the settings are not valid
      4    Kafka could not be used, or the topics do not exist
      130  interrupted; the same command goes on with the rest
    """
    wanted = _filter(
        request_ids, at=at, category=category, provider=provider, tenant=tenant, model=model, since=since, until=until
    )
    per_second = None if rate is None else _parsed(parse_rate, rate)
    settings = _settings()
    refusing = partial(refusal, topics=settings.topics)

    async def count() -> Plan:
        async with Mailbox(settings, writes=False) as mailbox:
            return await plan(mailbox, wanted, limit=limit, refusal=refusing)

    planned = _run(settings, count())
    job = Job(
        settings=settings,
        action=DeadLetterAction.REDRIVEN,
        wanted=wanted,
        plan=planned,
        limit=limit,
        per_second=per_second,
        as_json=as_json,
    )
    job.carry_out(dry_run=dry_run, yes=yes)


@app.command()
def purge(
    request_ids: Ids = None,
    *,
    at: At = None,
    category: Category = None,
    provider: Provider = None,
    tenant: Tenant = None,
    model: Model = None,
    since: Since = None,
    until: Until = None,
    before: Annotated[
        str | None,
        typer.Option(help="Everything that died before (30d, or a date), and delete the records.", show_default=False),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many in all.", min=1, show_default=False)] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Mark dead letters as purged, so that they are listed and redriven no more.

    With filters the records stay in Kafka until their retention ends: `sluice dlq list --all` has them. With --before
    alone the records themselves are deleted too, also those that were redriven. That cannot be undone.

    \b
    Examples:
      sluice dlq purge essay-7
      sluice dlq purge --category invalid_request --until 1d --dry-run
      sluice dlq purge --before 14d

    \b
    Exit codes:
      0    purged, also where there were none
      2    called wrongly, or the settings are not valid
      4    Kafka could not be used, or the topics do not exist
      130  interrupted; the same command goes on with the rest
    """
    wanted = _filter(
        request_ids, at=at, category=category, provider=provider, tenant=tenant, model=model, since=since, until=until
    )
    if before is not None:
        if wanted != LetterFilter() or limit is not None:
            misused("--before deletes records whatever they are: leave the filters out, or give --until instead of it")
        wanted = LetterFilter(until=_moment(before))
    settings = _settings()

    async def count() -> Plan:
        async with Mailbox(settings, writes=False) as mailbox:
            return await plan(mailbox, wanted, limit=limit)

    planned = _run(settings, count())
    job = Job(
        settings=settings,
        action=DeadLetterAction.PURGED,
        wanted=wanted,
        plan=planned,
        limit=limit,
        delete_before=wanted.until if before is not None else None,
        as_json=as_json,
    )
    job.carry_out(dry_run=dry_run, yes=yes)


def _settings() -> Settings:
    settings = settings_or_exit()
    configure_command_logs(settings, command="dlq")
    return settings


def _run(settings: Settings, work: Coroutine[Any, Any, T]) -> T:
    """Reads only: there is nothing to say when it is interrupted."""
    with Interrupts() as interrupts, kafka_problems(settings):
        try:
            return interrupts.run(work)
        except KeyboardInterrupt:
            fail("Interrupted. Nothing was written.", EXIT_INTERRUPTED)
    raise AssertionError("unreachable: kafka_problems ends the command")


def _row(found: Found) -> Row:
    return found.stored, found.handled


def _filter(
    request_ids: list[str] | None,
    *,
    at: list[str] | None,
    category: list[str] | None,
    provider: list[str] | None,
    tenant: list[str] | None,
    model: list[str] | None,
    since: str | None,
    until: str | None,
) -> LetterFilter:
    for name in category or ():
        if name not in set(FailureCategory):
            misused(f"--category: there is no {name}{similar(name, list(FailureCategory))}")
    return LetterFilter(
        request_ids=frozenset(request_ids or ()),
        positions=frozenset(_parsed(Position.parse, text) for text in at or ()),
        categories=frozenset(category or ()),
        providers=frozenset(provider or ()),
        tenants=frozenset(tenant or ()),
        models=frozenset(model or ()),
        since=None if since is None else _moment(since),
        until=None if until is None else _moment(until),
    )


def _moment(text: str) -> datetime:
    return _parsed(partial(parse_moment, now=datetime.now(UTC)), text)


def _parsed(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        misused(str(error))
