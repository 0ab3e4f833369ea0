"""Addresses of the user's own: checked, used, and never touched otherwise."""

import pytest

from sluice.stack import own_probes, probes
from sluice.stack.errors import ExternalUnreachable, NotOurs
from sluice.stack.external import ExternalService, without_password
from sluice.stack.ports import LOOPBACK, choose
from sluice.stack.probes import NotReady, Probe
from sluice.stack.service import Condition, Launch
from sluice.stack.state import ServiceName


def service(address: str, probe: Probe) -> ExternalService:
    return ExternalService(ServiceName.REDIS, variable="REDIS_URL", address=address, probe=probe)


def refuses(_address: str) -> None:
    raise NotReady("it accepts no connection")


def test_an_address_that_does_not_answer_is_named_with_its_variable() -> None:
    """The error says which variable, what it holds without the password, why, and what to do."""
    told: list[str] = []
    external = service("redis://user:hunter2@cache:6379/0", refuses)
    with pytest.raises(ExternalUnreachable) as caught:
        external.ensure(Launch(on_progress=told.append))
    message = str(caught.value)
    assert "REDIS_URL=redis://user:***@cache:6379/0 cannot be used: it accepts no connection" in message
    assert "Without REDIS_URL" in message
    assert "hunter2" not in message + "".join(told)


def test_an_address_that_answers_is_used_as_it_is() -> None:
    """Clients get the address with its password; nothing was started here."""
    external = service("redis://:hunter2@cache:6379/0", lambda _: None)
    external.ensure(Launch(on_progress=lambda _: None))
    assert external.address == "redis://:hunter2@cache:6379/0"
    assert not external.started_here
    assert external.condition() is Condition.RUNNING


def test_what_is_not_ours_is_not_stopped() -> None:
    """Stop, kill, start and restart are refused by name."""
    external = service("redis://cache", lambda _: None)
    for act in (external.stop, external.kill, external.start, external.restart):
        with pytest.raises(NotOurs, match="Redis at redis://cache was not started by Sluice"):
            act()


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("redis://:p@ss@cache:6379/0", "redis://:***@cache:6379/0"),
        ("rediss://user:secret@cache", "rediss://user:***@cache"),
        ("redis://cache:6379", "redis://cache:6379"),
        ("one:9092,two:9092", "one:9092,two:9092"),
        ("redis://[broken", "(not an address)"),
    ],
)
def test_passwords_are_masked(address: str, shown: str) -> None:
    """Whatever form the address has, its password is not shown."""
    assert without_password(address) == shown


KAFKA_PROBES = [probes.kafka_metadata, own_probes.ask_kafka]
REDIS_PROBES = [probes.redis_ping, own_probes.ask_redis]


@pytest.mark.parametrize("probe", KAFKA_PROBES)
@pytest.mark.parametrize(
    "address",
    [pytest.param(f"{LOOPBACK}:{choose(1)[0]}", id="closed port"), "not an address", "host.invalid:9092", "host:port"],
)
def test_a_kafka_that_is_not_there_is_not_ready(probe: Probe, address: str) -> None:
    """A closed port, an unknown host and a malformed address are told as a reason, not as a traceback."""
    with pytest.raises(NotReady):
        probe(address)


@pytest.mark.parametrize("probe", REDIS_PROBES)
@pytest.mark.parametrize(
    "address",
    [pytest.param(f"redis://{LOOPBACK}:{choose(1)[0]}", id="closed port"), "not a url", "redis://host:port"],
)
def test_a_redis_that_is_not_there_is_not_ready(probe: Probe, address: str) -> None:
    """A closed port and a malformed URL are both told as a reason, not as a traceback."""
    with pytest.raises(NotReady):
        probe(address)


@pytest.mark.parametrize(
    ("probe", "address"), [(own_probes.ask_kafka, "kafka:9092"), (own_probes.ask_redis, "redis://cache")]
)
def test_settings_that_do_not_fit_are_named_without_their_values(
    probe: Probe, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password without its mechanism is a reason that names the setting and not the password."""
    monkeypatch.setenv("SLUICE_KAFKA__SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("SLUICE_KAFKA__SASL_PASSWORD", "hunter2")
    with pytest.raises(NotReady, match="setting SLUICE_KAFKA: sasl_mechanism") as caught:
        probe(address)
    assert "hunter2" not in str(caught.value)
