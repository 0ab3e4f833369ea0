"""Fixtures for the command line's tests: an environment in which nothing is set, and the application in it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sluice.cli import application
from sluice.commands import run

OURS = ("SLUICE_", "OPENAI_", "KAFKA_BOOTSTRAP", "REDIS_URL", "SCHEMA_REGISTRY_URL")
Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting is set, no stack is running, and there is no file in the working folder."""
    for name in list(os.environ):
        if name.startswith(OURS):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SLUICE_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Runs a command in this process, without its logs: they would stay configured for the tests after it."""
    for module in ("send", "watch", "cancel", "demo"):
        monkeypatch.setattr(f"sluice.commands.{module}.configure_command_logs", lambda *_args, **_kwargs: None)
    monkeypatch.setattr(run, "configure_logs", lambda *_args, **_kwargs: None)
    monkeypatch.setattr(run, "configure_tracing", lambda *_args, **_kwargs: None)

    def invoke_command(*arguments: str, stdin: bytes = b"", **environment: str) -> Result:
        return CliRunner().invoke(application(), list(arguments), input=stdin, env=environment)

    return invoke_command
