"""`sluice providers`: which are configured, whether they can be reached, and one small call to try one out."""

import asyncio
import json
import os
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from connectors.providers.checking import Reached, check
from connectors.providers.errors import ProviderConfigurationError
from connectors.providers.pricing_file import PriceFileError, load_prices
from connectors.providers.registry import PROVIDER_TYPES, build_provider
from policy.catalogue import Catalogue, ProviderEntry
from schemas.attempt import Problem
from schemas.vocabulary import FailureCategory
from sluice.commands.endings import fail, misused
from sluice.commands.loading import catalogue_or_exit, configure_command_logs, settings_or_exit
from sluice.commands.provider_trial import Trial, make_trial

if TYPE_CHECKING:
    import httpx2

EXIT_FAILED = 1
CHECK_SECONDS = 10.0
_WIDTH_WITHOUT_TERMINAL = 200

app = typer.Typer(no_args_is_help=True, help="Show the configured providers, and try them out.")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What came of asking a provider for something that costs nothing."""

    milliseconds: float
    problem: Problem | None = None
    offered: tuple[str, ...] | None = None

    def not_offered(self, entry: ProviderEntry) -> list[str]:
        """Models of the entry that the provider does not list, where it lists any."""
        named = [model for model in entry.models if not model.endswith("*")]
        return [] if self.offered is None else [model for model in named if model not in self.offered]


@app.command("list")
def list_(
    *,
    checked: Annotated[bool, typer.Option("--check", help="Ask each of them; costs nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the configured providers: models, keys and what they can do. With --check, also whether they answer.

    Keys are told by the name of their variable, never by their value.

    \b
    Examples:
      sluice providers list
      sluice providers list --check
      sluice providers list --check --json | jq '.providers[] | select(.check.reachable | not).name'

    \b
    Exit codes:
      0  listed (with --check: all can be used)
      1  with --check: some cannot be used
      2  called wrongly, or the settings or the providers file are not valid
    """
    settings = settings_or_exit()
    configure_command_logs(settings, command="providers")
    catalogue = catalogue_or_exit(settings)
    checks = asyncio.run(_check_all(catalogue)) if checked else {}
    if as_json:
        rows = [_as_json(name, entry, checks.get(name)) for name, entry in catalogue.providers.items()]
        typer.echo(json.dumps({"default": catalogue.default_provider, "providers": rows}, indent=2))
    else:
        _show(catalogue, checks)
    if any(found.problem is not None for found in checks.values()):
        raise typer.Exit(EXIT_FAILED)


@app.command("test")
def try_out(
    name: Annotated[str, typer.Argument(help="As the providers file has it.")],
    *,
    model: Annotated[str | None, typer.Option(help="Absent: its default.", show_default=False)] = None,
    comparison: Annotated[
        bool, typer.Option("--comparison", help="Compare two tiny essays, by a JSON schema.")
    ] = False,
    stream: Annotated[bool, typer.Option(help="Take the answer in pieces.")] = True,
    as_json: AsJson = False,
) -> None:
    """Make one small call to a provider, past Kafka: its answer, time, tokens and cost, or how it failed.

    \b
    Examples:
      sluice providers test openai
      sluice providers test openai --model gpt-5.4-nano --comparison
      sluice providers test local --json | jq .first_token_ms

    \b
    Exit codes:
      0  answered (with --comparison: with a verdict that fits)
      1  the call failed; the category says how
      2  called wrongly, or the provider cannot be used as it is configured
    """
    settings = settings_or_exit()
    configure_command_logs(settings, command="providers")
    entry = _entry(catalogue_or_exit(settings), name)
    asked = model or entry.model
    if not entry.serves(asked):
        misused(f"provider {name} does not serve {asked}; its models: {', '.join(entry.models)}")
    try:
        prices = load_prices(settings.prices_file)
        trial = asyncio.run(make_trial(name, entry, asked, comparison=comparison, stream=stream, prices=prices))
    except (ProviderConfigurationError, PriceFileError) as error:
        misused(str(error))
    if as_json:
        typer.echo(json.dumps(trial.as_json(), indent=2))
        raise typer.Exit(EXIT_FAILED if trial.problem else 0)
    _show_trial(trial)
    if trial.problem is not None:
        fail(_told(trial.problem), EXIT_FAILED)


def _entry(catalogue: Catalogue, name: str) -> ProviderEntry:
    entry = catalogue.providers.get(name)
    if entry is None:
        misused(f"there is no provider named {name}; there is: {', '.join(catalogue.providers)}")
    return entry


async def _check_all(catalogue: Catalogue) -> dict[str, Checked]:
    async with AsyncExitStack() as stack:
        client = _shared_client()
        if client is not None:
            stack.push_async_callback(client.aclose)
        entries = catalogue.providers.items()
        found = await asyncio.gather(*(_check_one(name, entry, client) for name, entry in entries))
        return dict(zip(catalogue.providers, found, strict=True))


def _shared_client() -> "httpx2.AsyncClient | None":
    try:
        from connectors.providers.http_client import new_http_client  # noqa: PLC0415 - it comes with the SDKs' extras
    except ModuleNotFoundError:
        return None
    return new_http_client()


async def _check_one(name: str, entry: ProviderEntry, client: "httpx2.AsyncClient | None") -> Checked:
    began = time.monotonic()
    try:
        provider = build_provider(name, entry, http_client=client)
    except ProviderConfigurationError as error:
        return Checked(milliseconds=0, problem=Problem(message=str(error)))
    try:
        found = await check(provider, timeout_seconds=CHECK_SECONDS)
    finally:
        await provider.close()
    milliseconds = round((time.monotonic() - began) * 1000, 1)
    if isinstance(found, Reached):
        return Checked(milliseconds=milliseconds, offered=found.models)
    return Checked(milliseconds=milliseconds, problem=found)


def _key(entry: ProviderEntry, environ: Mapping[str, str]) -> dict[str, Any] | None:
    variable = PROVIDER_TYPES[entry.type].key_variable(entry)
    return None if variable is None else {"variable": variable, "set": bool(environ.get(variable, "").strip())}


def _structured_output(entry: ProviderEntry) -> dict[str, str]:
    kind = PROVIDER_TYPES[entry.type]
    options = kind.options.model_validate(entry.options)
    return {model: kind.structured_output(options, model) for model in entry.models}


def _as_json(name: str, entry: ProviderEntry, found: Checked | None) -> dict[str, Any]:
    row = {
        "name": name,
        "type": entry.type,
        "extra": PROVIDER_TYPES[entry.type].extra,
        "local": entry.local,
        "models": entry.models,
        "default_model": entry.model,
        "base_url": entry.base_url,
        "key": _key(entry, os.environ),
        "capabilities": {"streaming": True, "structured_output": _structured_output(entry)},
    }
    if found is not None:
        row["check"] = {
            "reachable": found.problem is None,
            "milliseconds": found.milliseconds,
            "models_not_offered": found.not_offered(entry),
            "problem": None if found.problem is None else found.problem.model_dump(mode="json", exclude_none=True),
        }
    return row


def _show(catalogue: Catalogue, checks: dict[str, Checked]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    headings = ["PROVIDER", "TYPE", "LOCAL", "KEY", "MODELS", "JSON BY"]
    for heading in [*headings, "STATE"] if checks else headings:
        table.add_column(heading, overflow="fold")
    for name, entry in catalogue.providers.items():
        key = _key(entry, os.environ)
        cells = [
            Text(name + (" (default)" if name == catalogue.default_provider else "")),
            Text(entry.type),
            Text("yes" if entry.local else "no"),
            Text("none needed") if key is None else _key_cell(key),
            Text(", ".join(entry.models)),
            Text(", ".join(dict.fromkeys(_structured_output(entry).values()))),
        ]
        table.add_row(*cells, *([_state(entry, checks[name])] if name in checks else []))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_WITHOUT_TERMINAL
    console.print(table)


def _key_cell(key: dict[str, Any]) -> Text:
    return Text(key["variable"]) if key["set"] else Text(f"{key['variable']} is not set", style="yellow")


def _state(entry: ProviderEntry, found: Checked) -> Text:
    if found.problem is not None:
        return Text(_told(found.problem), style="red")
    missing = found.not_offered(entry)
    if missing:
        return Text(f"reached; it does not list {', '.join(missing)}", style="yellow")
    return Text(f"reached in {found.milliseconds:.0f} ms", style="green")


def _show_trial(trial: Trial) -> None:
    answered, usage, cost = trial.answered, trial.report.outcome.usage, trial.cost_usd
    first = trial.report.first_token_seconds
    if answered is not None:
        typer.echo(answered.text)
    facts = [
        trial.model if answered is None else f"{trial.model}, answered by {answered.model}",
        f"{trial.report.duration_seconds:.2f} s" + ("" if first is None else f", the first token after {first:.2f} s"),
        "tokens not told" if usage is None else f"{usage.input_tokens} tokens in, {usage.output_tokens} out",
        "price not known" if cost is None else f"{cost:.6f} USD",
    ]
    typer.echo(f"({'; '.join(facts)})")


def _told(problem: Problem) -> str:
    """A problem in one line: how it failed, what happened, what to do."""
    category = "" if problem.category is FailureCategory.UNKNOWN else f"{problem.category}: "
    return f"{category}{problem.message}" + (f" ({problem.remedy})" if problem.remedy else "")
