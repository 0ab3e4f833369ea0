"""`sluice doctor`: what this machine has, what the demo needs, and what to do about the difference.

A check is a function from `Surroundings` to one `Finding`; `CHECKS` is the list of them.
"""

import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from connectors.providers.catalogue_file import load_catalogue
from connectors.providers.registry import PROVIDER_TYPES
from connectors.settings import Settings
from policy.catalogue import CatalogueError
from sluice import stack
from sluice.stack import locations, machine
from sluice.stack.external import without_password
from sluice.stack.probes import NotReady, Probe
from sluice.stack.resolve import MINIMUM_JAVA, Machine, kafka_gap, kafka_source, redis_gap, redis_source
from sluice.stack.state import Source, StateDir

EXIT_FAILED = 1
_PYTHONS = ((3, 11), (3, 13))
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_BY = {Source.DOCKER: "in Docker", Source.JAVA: "under Java", Source.REDIS_SERVER: "as a process of its own"}
_KEYS = (
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "OPENROUTER_API_KEY",
    "AZURE_OPENAI_API_KEY",
)


class Status(StrEnum):
    """`warn`: something optional is missing. `fail`: the demo cannot run."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The outcome of one check."""

    name: str
    status: Status
    found: str
    todo: str = ""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the checks look at."""

    environ: Mapping[str, str]
    machine: Machine
    addresses: stack.Addresses
    probes: stack.ExternalProbes


Check = Callable[[Surroundings], Finding]


def check_python(_around: Surroundings) -> Finding:
    """Python in the range that the dependencies have wheels for."""
    lowest, highest = _PYTHONS
    version = ".".join(str(part) for part in sys.version_info[:3])
    if lowest <= sys.version_info[:2] <= highest:
        return Finding(name="Python", status=Status.OK, found=version)
    wanted = f"{lowest[0]}.{lowest[1]} to {highest[0]}.{highest[1]}"
    return Finding(name="Python", status=Status.FAIL, found=version, todo=f"Use Python {wanted}.")


def check_java(around: Surroundings) -> Finding:
    """Java, for a Kafka without Docker."""
    java = around.machine.java
    found = f"{java.major} ({java.path})" if java else "not on PATH"
    return _optional(around, "Java", found, there=around.machine.java_fits, todo=f"Install Java {MINIMUM_JAVA}+.")


def check_maven(around: Surroundings) -> Finding:
    """Maven, which fetches Kafka once."""
    if around.machine.maven is None and around.machine.kafka_jars:
        return Finding(name="Maven", status=Status.OK, found="not on PATH; Kafka is fetched already")
    found = str(around.machine.maven or "not on PATH")
    return _optional(around, "Maven", found, there=around.machine.maven is not None, todo="Install Maven.")


def check_docker(around: Surroundings) -> Finding:
    """A Docker engine that answers."""
    version = around.machine.docker_version
    found = f"engine {version}" if version else around.machine.docker_gap
    return _optional(around, "Docker", found, there=version is not None, todo="Start Docker.")


def _optional(around: Surroundings, name: str, found: str, *, there: bool, todo: str) -> Finding:
    """Java, Maven and Docker are ways to a Kafka: one that is missing matters only when no other leads there."""
    if there:
        return Finding(name=name, status=Status.OK, found=found)
    if kafka_source(around.machine) is not None:
        return Finding(name=name, status=Status.OK, found=f"{found}; not needed")
    return Finding(name=name, status=Status.WARN, found=found, todo=todo)


def check_kafka(around: Surroundings) -> Finding:
    """A Kafka that answers, or the means to start one."""
    return _check_service(
        "Kafka",
        address=around.addresses.kafka_bootstrap,
        variable="KAFKA_BOOTSTRAP" if around.machine.kafka_bootstrap else None,
        probe=around.probes.kafka,
        source=kafka_source(around.machine),
        gap=kafka_gap(around.machine),
    )


def check_redis(around: Surroundings) -> Finding:
    """A Redis that answers, or the means to start one."""
    return _check_service(
        "Redis",
        address=around.addresses.redis_url,
        variable="REDIS_URL" if around.machine.redis_url else None,
        probe=around.probes.redis,
        source=redis_source(around.machine),
        gap=redis_gap(around.machine),
    )


def _check_service(
    name: str, *, address: str | None, variable: str | None, probe: Probe, source: Source | None, gap: str
) -> Finding:
    if address is None:
        if source is None:
            found, _, todo = gap.removeprefix(f"No {name}: ").partition(". ")
            return Finding(name=name, status=Status.FAIL, found=found, todo=todo)
        return Finding(name=name, status=Status.OK, found=f"not running; `sluice up` starts it {_BY[source]}")
    shown = without_password(address)
    try:
        probe(address)
    except NotReady as error:
        todo = f"Correct or unset {variable}." if variable else "Run `sluice down`, then `sluice up`."
        return Finding(name=name, status=Status.FAIL, found=f"{shown} cannot be used: {error}", todo=todo)
    origin = f"from {variable}" if variable else "local stack"
    return Finding(name=name, status=Status.OK, found=f"{shown} answers ({origin})")


def check_browser(around: Surroundings) -> Finding:
    """A Chromium for the browser tests."""
    browser = next((path for name in _BROWSERS if (path := machine.find_program(name))), None)
    browser = browser or _playwright_chromium(around.environ)
    if importlib.util.find_spec("playwright") is None:
        found, todo = "playwright is not installed", "For the browser tests: install the dev dependencies."
    elif browser is None:
        found, todo = "no Chromium", "For the browser tests: `playwright install chromium`, or apt's chromium."
    else:
        return Finding(name="Browser", status=Status.OK, found=f"{browser}, with playwright")
    return Finding(name="Browser", status=Status.WARN, found=found, todo=todo)


def _playwright_chromium(environ: Mapping[str, str]) -> Path | None:
    given = environ.get("PLAYWRIGHT_BROWSERS_PATH")
    folders = (
        [Path(given)] if given else [Path.home() / ".cache/ms-playwright", Path.home() / "Library/Caches/ms-playwright"]
    )
    return next((found for folder in folders for found in sorted(folder.glob("chromium-*"))), None)


def check_keys(around: Surroundings) -> Finding:
    """Keys of providers: their names, never their values."""
    names = [name for name in _KEYS if around.environ.get(name)]
    if names:
        return Finding(name="API keys", status=Status.OK, found=", ".join(names))
    todo = f"For a real provider set its key, e.g. {_KEYS[0]}; the demo does without."
    return Finding(name="API keys", status=Status.WARN, found="none", todo=todo)


def check_providers(around: Surroundings) -> Finding:
    """The settings, and for each provider of `providers_file` what its lane needs: a package, a key."""
    try:
        catalogue = load_catalogue(Settings().providers_file)
    except (CatalogueError, OSError) as error:
        return Finding(name="Providers", status=Status.WARN, found=str(error), todo="Correct it: see `sluice config`.")
    except ValueError:
        invalid = "the settings are not valid"
        return Finding(name="Providers", status=Status.FAIL, found=invalid, todo="Run `sluice config`: it names each.")
    found: list[str] = []
    todos: list[str] = []
    for name, entry in catalogue.providers.items():
        extra = PROVIDER_TYPES[entry.type].extra
        if extra is not None and not _is_installed(extra):
            found.append(f"{name} lacks its package")
            todos.append(f"`pip install 'sluice[{extra}]'`")
        elif entry.api_key_env is not None and not around.environ.get(entry.api_key_env):
            found.append(f"{name} lacks {entry.api_key_env}")
            todos.append(f"`export {entry.api_key_env}=...`")
        else:
            found.append(f"{name} is ready")
    todo = f"Where its lane runs: {', '.join(todos)}." if todos else ""
    return Finding(name="Providers", status=Status.WARN if todos else Status.OK, found="; ".join(found), todo=todo)


def _is_installed(extra: str) -> bool:
    """Whether the packages are there that this extra of ours names."""
    try:
        ours = metadata.requires(locations.APPLICATION) or []
    except metadata.PackageNotFoundError:
        return True  # run from the sources: nobody knows what the extra names
    lines = (line.partition(";") for line in ours)
    names = [re.split(r"[^\w.-]", wanted)[0] for wanted, _, marker in lines if f'"{extra}"' in marker.replace("'", '"')]
    return all(any(metadata.distributions(name=name)) for name in names)


CHECKS: tuple[Check, ...] = (
    check_python,
    check_java,
    check_maven,
    check_docker,
    check_kafka,
    check_redis,
    check_browser,
    check_keys,
    check_providers,
)


def doctor(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as one JSON object.")] = False,
) -> None:
    """Check what this machine has for Sluice, and say what to do where something is missing.

    \b
    Examples:
      sluice doctor
      sluice doctor --json | jq '.checks[] | select(.status != "ok")'

    \b
    Exit codes:
      0  the demo could run
      1  it could not
    """
    try:
        around = look_around(os.environ)
    except (stack.StackError, OSError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_FAILED) from None
    findings = [check(around) for check in CHECKS]
    could_run = all(finding.status is not Status.FAIL for finding in findings)
    if as_json:
        typer.echo(json.dumps({"ok": could_run, "checks": [asdict(finding) for finding in findings]}))
    else:
        _show(findings, could_run=could_run)
    raise typer.Exit(0 if could_run else EXIT_FAILED)


def look_around(environ: Mapping[str, str]) -> Surroundings:
    """Gather what the checks look at."""
    state = StateDir(locations.state_dir(environ))
    return Surroundings(
        environ=environ,
        machine=machine.look(environ, state, locations.cache_dir(environ)),
        addresses=stack.find_running(state.path, environ=environ),
        probes=stack.ExternalProbes(),
    )


def _show(findings: list[Finding], *, could_run: bool) -> None:
    console = Console(highlight=False)
    colours = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("", "Check", "Found", "What to do"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        mark = f"[{colours[finding.status]}]{finding.status}[/]"
        table.add_row(mark, finding.name, escape(finding.found), escape(finding.todo))
    console.print(table)
    console.print("\nThe demo can run: `sluice demo`." if could_run else "\n[red]The demo cannot run yet.[/]")
