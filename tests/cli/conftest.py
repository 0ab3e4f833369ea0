"""Fixtures for the command line's tests: an environment in which nothing is set, and the application in it."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from sluice.cli import application

OURS = ("SLUICE_", "OPENAI_", "KAFKA_BOOTSTRAP", "REDIS_URL", "SCHEMA_REGISTRY_URL")
Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting is set, no stack is running, and there is no file in the working folder."""
    for name in os.environ:
        if name.startswith(OURS):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SLUICE_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def invoke() -> Invoke:
    """Runs a command in this process."""

    def run(*arguments: str, stdin: bytes = b"", **environment: str) -> Result:
        return CliRunner().invoke(application(), arguments, input=stdin, env=environment)

    return run


def told(result: Result) -> Mapping[str, object]:
    """What a failing test wants to know of a command's run."""
    return {"exit_code": result.exit_code, "stdout": result.stdout, "stderr": result.stderr}
