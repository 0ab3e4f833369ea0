"""What `sluice doctor` finds, and what it says about it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from sluice.commands import doctor as command
from sluice.commands.doctor import CHECKS, Finding, Status, Surroundings
from sluice.stack import Addresses, ExternalProbes, NotReady
from sluice.stack.resolve import Java, Machine

READY = Surroundings(
    environ={},
    machine=Machine(
        java=Java(path=Path("/usr/bin/java"), major=17),
        maven=Path("/usr/bin/mvn"),
        redis_server=Path("/usr/bin/redis-server"),
    ),
    addresses=Addresses(kafka_bootstrap=None, redis_url=None),
    probes=ExternalProbes(kafka=lambda _: None, redis=lambda _: None),
)


def refuses(_address: str) -> None:
    raise NotReady("it accepts no connection")


def findings(around: Surroundings) -> dict[str, Finding]:
    return {finding.name: finding for finding in (check(around) for check in CHECKS)}


def test_java_without_docker_is_enough() -> None:
    """With Java, Maven and a redis-server nothing fails, and Docker is said to be not needed."""
    found = findings(READY)
    assert Status.FAIL not in {finding.status for finding in found.values()}
    assert found["Docker"].status is Status.OK
    assert "not needed" in found["Docker"].found
    assert "under Java" in found["Kafka"].found


def test_docker_without_java_is_enough() -> None:
    """With an engine nothing fails, and Java is said to be not needed."""
    found = findings(replace(READY, machine=Machine(docker_version="28.0")))
    assert Status.FAIL not in {finding.status for finding in found.values()}
    assert "not needed" in found["Java"].found


def test_a_bare_machine_fails_with_remedies() -> None:
    """Where nothing is there, Kafka and Redis fail, and every finding that is not ok says what to do."""
    found = findings(replace(READY, machine=Machine()))
    assert (found["Kafka"].status, found["Redis"].status) == (Status.FAIL, Status.FAIL)
    assert found["Java"].status is Status.WARN
    assert all(finding.todo for finding in found.values() if finding.status is not Status.OK)
    assert "Install Java" in found["Kafka"].todo
    assert "KAFKA_BOOTSTRAP" in found["Kafka"].todo


def test_an_old_java_is_shown_with_its_version() -> None:
    """Java 11 is found, and not enough."""
    old = replace(READY.machine, java=Java(path=Path("/opt/java"), major=11))
    java = findings(replace(READY, machine=old))["Java"]
    assert (java.status, java.found) == (Status.WARN, "11 (/opt/java)")


def test_a_given_address_that_does_not_answer_fails_without_its_password() -> None:
    """The variable is named as what to correct; the password is not shown."""
    url = "redis://user:hunter2@cache:6379"
    around = replace(
        READY,
        machine=replace(READY.machine, redis_url=url),
        addresses=Addresses(kafka_bootstrap=None, redis_url=url),
        probes=ExternalProbes(redis=refuses),
    )
    redis = findings(around)["Redis"]
    assert redis.status is Status.FAIL
    assert "redis://user:***@cache:6379 cannot be used" in redis.found
    assert "REDIS_URL" in redis.todo


def test_a_local_stack_that_answers_is_told_apart_from_an_own_one() -> None:
    """The address and whose it is are both told."""
    around = replace(READY, addresses=Addresses(kafka_bootstrap="127.0.0.1:20000", redis_url=None))
    assert findings(around)["Kafka"].found == "127.0.0.1:20000 answers (local stack)"


def test_keys_are_named_and_never_shown() -> None:
    """The name of a key that is set is there, its value is nowhere."""
    found = findings(replace(READY, environ={"OPENAI_API_KEY": "sk-hunter2", "ANTHROPIC_API_KEY": ""}))
    assert (found["API keys"].status, found["API keys"].found) == (Status.OK, "OPENAI_API_KEY")
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(("machine", "exit_code"), [(READY.machine, 0), (Machine(), 1)])
@pytest.mark.parametrize("as_json", [True, False])
def test_the_exit_code_says_whether_the_demo_could_run(
    machine: Machine, exit_code: int, as_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0 when nothing fails, 1 otherwise, in both forms of output."""
    monkeypatch.setattr(command, "look_around", lambda _environ: replace(READY, machine=machine))
    app = typer.Typer()
    app.command()(command.doctor)
    result = CliRunner().invoke(app, ["--json"] if as_json else [])
    assert result.exit_code == exit_code
    if as_json:
        told = json.loads(result.stdout)
        assert told["ok"] is (exit_code == 0)
        assert {"name", "status", "found", "todo"} == set(told["checks"][0])
    else:
        assert "Kafka" in result.stdout
