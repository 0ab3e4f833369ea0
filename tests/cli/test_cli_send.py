"""`sluice send` and `sluice watch` called wrongly, and with no Kafka there: one line, and an exit code."""

import asyncio
import json
from pathlib import Path

import pytest

from connectors.settings import Settings
from sluice.commands import run
from tests.cli.conftest import Invoke
from tests.cli.processes import sluice
from tests.cli.test_request_lines import line

NOWHERE = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give either a text or --file"),
        (("hi", "--file", "x.jsonl"), "with --file each line says what is sent"),
        (("--file", "x.jsonl", "--id", "a"), "with --file each line says what is sent"),
        (("--file", "x.jsonl"), "x.jsonl: No such file or directory"),
        (("--file", "."), ".: Is a directory"),
        (("",), "the request: messages.0.content: "),
        (("hi", "--id", "not an id"), "the request: request_id: "),
        (("hi", "--provider", "Not A Name"), "the request: provider: "),
        (("hi", "--wait", "--timeout", "0"), "Usage: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_send_says_how_it_is_to_be_called(arguments: tuple[str, ...], said: str, invoke: Invoke) -> None:
    """Nothing is sent: it ends before it looks for a Kafka."""
    result = invoke("send", *arguments, KAFKA_BOOTSTRAP=NOWHERE)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(said)


def test_send_names_the_bad_line_of_standard_input(invoke: Invoke) -> None:
    """Standard input is `-`, there as everywhere."""
    result = invoke("send", "-f", "-", stdin=f"{line('a')}\n\n{{}}\n".encode(), KAFKA_BOOTSTRAP=NOWHERE)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("-:3: request_id: ")


def test_watch_until_done_needs_names(invoke: Invoke) -> None:
    """Without any it would end at once, or never."""
    result = invoke("watch", "--until-done", KAFKA_BOOTSTRAP=NOWHERE)
    assert result.exit_code == 2
    assert "which requests" in result.stderr


async def test_without_kafka_one_line_says_what_to_do() -> None:
    """No traceback and no log of a library; standard output stays empty, and the exit code is 4."""
    commands = (("send", "hi", "--wait", "--json"), ("watch",))
    runs = (sluice(*command, environment={"KAFKA_BOOTSTRAP": NOWHERE}) for command in commands)
    for ended in await asyncio.gather(*runs):
        assert (ended.exit_code, ended.stdout) == (4, "")
        (said,) = ended.stderr.splitlines()
        assert said.startswith(f"Kafka at {NOWHERE}: ")
        assert "Check KAFKA_BOOTSTRAP" in said


async def test_a_role_without_kafka_logs_why_it_cannot_start() -> None:
    """One event for its supervisor to see, with exit code 1, and no traceback."""
    ended = await sluice("run", "intake", environment={"KAFKA_BOOTSTRAP": NOWHERE})
    assert (ended.exit_code, ended.stdout) == (1, "")
    (event,) = map(json.loads, ended.stderr.splitlines())
    assert (event["event"], event["role"], event["level"]) == ("cannot_start", "intake", "error")
    assert "Check KAFKA_BOOTSTRAP" in event["reason"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("lane",), "a lane needs its provider"),
        (("intake", "simulated"), "a lane needs its provider"),
        (("lane", "nobody"), "there is no provider named nobody; there are: simulated"),
        (("waiter",), "Usage: "),
    ],
    ids=" ".join,
)
def test_run_says_which_roles_there_are(arguments: tuple[str, ...], said: str, invoke: Invoke) -> None:
    """And which providers."""
    result = invoke("run", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(said)


def test_a_lane_whose_key_is_missing_says_which(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """With exit code 2: no restart will help. Its Kafka was there; nothing else was connected to."""
    pytest.importorskip("openai")

    async def is_there(_settings: Settings) -> None:
        return

    monkeypatch.setattr(run, "check_access", is_there)
    Path("p.toml").write_text('[providers.o]\ntype = "openai"\nmodels = ["m"]\napi_key_env = "SOME_KEY"\n')
    result = invoke("run", "lane", "o", SLUICE_PROVIDERS_FILE="p.toml", KAFKA_BOOTSTRAP=NOWHERE)
    assert (result.exit_code, result.stdout) == (2, "")
    (said,) = result.stderr.splitlines()
    assert "SOME_KEY" in said
