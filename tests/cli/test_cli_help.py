"""What `sluice` says of itself."""

from typing import Any

import pytest
import typer

from sluice.cli import application
from tests.cli.conftest import Invoke

ROOT: Any = typer.main.get_command(application())
WIDEST = 100


def every_command() -> list[tuple[str, ...]]:
    """Those of groups with the name of their group."""
    found: list[tuple[str, ...]] = []
    for name, command in ROOT.commands.items():
        found += [(name, below) for below in command.commands] if hasattr(command, "commands") else [(name,)]
    return found


@pytest.mark.parametrize("command", every_command(), ids=" ".join)
def test_every_command_has_examples_and_exit_codes(command: tuple[str, ...], invoke: Invoke) -> None:
    """Its help shows how to call it, states what it ends with, and is not wide."""
    result = invoke(*command, "--help", COLUMNS="80")
    assert result.exit_code == 0
    examples, _, codes = result.stdout.partition("Exit codes:")
    assert f"sluice {' '.join(command)}" in examples.partition("Examples:")[2]
    assert "  0  " in codes
    assert max(len(line) for line in result.stdout.splitlines()) <= WIDEST


@pytest.mark.parametrize("command", every_command(), ids=" ".join)
def test_every_command_refuses_an_unknown_option(command: tuple[str, ...], invoke: Invoke) -> None:
    """With exit code 2, a word on standard error and nothing on standard output."""
    result = invoke(*command, "--no-such-option")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--no-such-option" in result.stderr


def test_no_command_shows_the_list_of_them(invoke: Invoke) -> None:
    """All commands are named, each with a line."""
    result = invoke()
    assert result.exit_code == 2
    listed = result.stdout + result.stderr
    assert all(f"\n  {name}" in listed for name in ROOT.commands)


def test_the_version_is_told(invoke: Invoke) -> None:
    """`sluice --version` is one line."""
    assert invoke("--version").stdout.split() == ["sluice", "0.1.0"]
