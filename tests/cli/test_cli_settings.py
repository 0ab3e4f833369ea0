"""Settings as a command meets them: wrong ones are named, secrets are masked, a running stack is found."""

import json
from pathlib import Path

import pytest
from typer.testing import Result

from sluice import stack
from sluice.commands.config import MASK, without_secrets
from tests.cli.conftest import Invoke

HIDDEN = "hunter2"
SASL = {
    "SLUICE_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
    "SLUICE_KAFKA__SASL_MECHANISM": "PLAIN",
    "SLUICE_KAFKA__SASL_USERNAME": "us",
}


@pytest.mark.parametrize(
    ("environment", "lines"),
    [
        ({"SLUICE_TOPIC_PARTITIONS": "many"}, ["topic_partitions (SLUICE_TOPIC_PARTITIONS): Input should be a valid"]),
        ({"SLUICE_KAFKA__SASL_MECHANISM": "PLAIN"}, ["kafka (SLUICE_KAFKA): sasl_mechanism goes with"]),
        (
            {"SLUICE_KAFKA__SASL_MECHANSM": "PLAIN"},
            ["kafka.sasl_mechansm (SLUICE_KAFKA__SASL_MECHANSM): there is no such setting; did you mean sasl_mech"],
        ),
        (
            {"SLUICE_WORKER__CONCURRENCY": "0", "SLUICE_BRIDGE__PORT": "99999"},
            ["bridge.port (SLUICE_BRIDGE__PORT): ", "worker.concurrency (SLUICE_WORKER__CONCURRENCY): "],
        ),
        ({"SLUICE_WORKER__RESULT_TOPICS": "a,b"}, ["SLUICE_WORKER__RESULT_TOPICS: not JSON"]),
        ({"SLUICE_CONFIG": "nowhere.toml"}, ["SLUICE_CONFIG=nowhere.toml: no such file"]),
        ({"SLUICE_PROVIDERS_FILE": "nowhere.toml"}, ["nowhere.toml: cannot be read"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_each_wrong_setting_is_named_on_a_line(environment: dict[str, str], lines: list[str], invoke: Invoke) -> None:
    """Nothing else is said, and the exit code is 2."""
    result = invoke("config", **environment)
    assert (result.exit_code, result.stdout) == (2, "")
    found = sorted(result.stderr.splitlines())
    assert len(found) == len(lines)
    for line, beginning in zip(found, lines, strict=True):
        assert line.startswith(beginning)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = = 1", "sluice.toml: Invalid value (at line 1, column 5)"),
        ("kafka_bootstrp = 'x'", "kafka_bootstrp (SLUICE_KAFKA_BOOTSTRP): there is no such setting; did you mean"),
        ("kafka_bootstrap = 3", "kafka_bootstrap (KAFKA_BOOTSTRAP): Input should be a valid string"),
    ],
)
def test_a_wrong_file_is_told(text: str, said: str, invoke: Invoke) -> None:
    """Names are given as the file has them, and as the environment would."""
    Path("sluice.toml").write_text(text)
    result = invoke("config")
    assert result.exit_code == 2
    assert result.stderr.startswith(said)


@pytest.mark.parametrize("command", [("send", "hi"), ("watch",), ("run", "intake"), ("demo",), ("topics", "list")])
def test_every_command_that_reads_settings_tells_what_is_wrong_with_them(
    command: tuple[str, ...], invoke: Invoke
) -> None:
    """In the same words, and before it connects to anything."""
    result = invoke(*command, SLUICE_TOPIC_PARTITIONS="0")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("topic_partitions (SLUICE_TOPIC_PARTITIONS): ")


@pytest.mark.parametrize("as_json", [True, False])
def test_config_masks_every_secret(as_json: bool, invoke: Invoke) -> None:
    """Passwords of Redis, SASL and the schema registry are set and not shown, wherever they stand."""
    result = invoke(
        "config",
        *(["--json"] if as_json else []),
        **SASL,
        SLUICE_KAFKA__SASL_PASSWORD=HIDDEN,
        REDIS_URL=f"rediss://us:hunter2@cache:6380/1?ssl_password={HIDDEN}&db=1",
        SLUICE_REDIS__PASSWORD=HIDDEN,
        SLUICE_REDIS__SENTINEL_PASSWORD=HIDDEN,
        SCHEMA_REGISTRY_URL=f"https://us:hunter2@one:8081,https://us:{HIDDEN}@two:8081",
        SLUICE_REGISTRY__PASSWORD=HIDDEN,
        SLUICE_KAFKA__TLS__KEY_PASSWORD=HIDDEN,
        SLUICE_KAFKA__OAUTH_TOKEN_URL=f"https://us:{HIDDEN}@login/token",
    )
    assert result.exit_code == 0
    assert HIDDEN not in result.stdout + result.stderr
    assert "us:**********@cache:6380/1" in result.stdout
    assert "us:**********@two:8081" in result.stdout
    if as_json:
        shown = json.loads(result.stdout)
        assert shown["kafka"]["sasl_password"] == shown["redis"]["password"] == MASK
        assert shown["providers"]["simulated"]["api_key"] == "none needed"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://:pw@h:1/0", "redis://:**********@h:1/0"),
        ("redis://u:p/w@x@h:1/0", "redis://u:**********@h:1/0"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("http://h/?token=t&a=b", "http://h/?token=**********&a=b"),
        (None, None),
    ],
)
def test_a_url_loses_its_password_even_if_no_parser_would_find_it(url: str | None, shown: str | None) -> None:
    """A slash or an at sign in a password does not save it."""
    assert without_secrets(url) == shown


def test_config_tells_of_variables_that_are_no_settings(invoke: Invoke) -> None:
    """A misspelt variable is a warning beside the result, with the name that was meant."""
    result = invoke("config", "--json", SLUICE_TOPIC_PREFX="x", SLUICE_KAFKA_BOOTSTRAP="x")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["topic_prefix"] == ""
    assert "SLUICE_TOPIC_PREFX is ignored: there is no such setting; did you mean SLUICE_TOPIC_PREFIX?" in result.stderr
    assert "SLUICE_KAFKA_BOOTSTRAP is ignored: there is no such setting; did you mean KAFKA_BOOTSTRAP?" in result.stderr


@pytest.fixture
def _stack_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    found = stack.Addresses(kafka_bootstrap="127.0.0.1:20001", redis_url="redis://127.0.0.1:20002/0")
    monkeypatch.setattr(stack, "find_running", lambda: found)


def addresses(result: Result) -> tuple[str, str]:
    shown = json.loads(result.stdout)
    return shown["kafka_bootstrap"], shown["redis_url"]


@pytest.mark.usefixtures("_stack_is_up")
def test_a_stack_that_runs_here_is_used_where_nothing_else_is_said(invoke: Invoke) -> None:
    """After `sluice up` the other commands need no exports; an address that was set, in either way, is kept."""
    assert addresses(invoke("config", "--json")) == ("127.0.0.1:20001", "redis://127.0.0.1:20002/0")
    assert addresses(invoke("config", "--json", KAFKA_BOOTSTRAP="b:1"))[0] == "b:1"
    Path("sluice.toml").write_text("redis_url = 'redis://mine/0'")
    assert addresses(invoke("config", "--json")) == ("127.0.0.1:20001", "redis://mine/0")
