"""What `sluice doctor` says about providers."""

from pathlib import Path

import pytest

from sluice.commands import doctor
from sluice.commands.doctor import Finding, Status, Surroundings, check_providers
from sluice.stack import Addresses, ExternalProbes
from sluice.stack.resolve import Machine

CATALOGUE = """
[providers.free]
type = "simulated"
models = ["reading-ease-1"]
[providers.paid]
type = "openai"
models = ["m"]
api_key_env = "PAID_KEY"
"""


def finding(**environ: str) -> Finding:
    return check_providers(
        Surroundings(
            environ=environ,
            machine=Machine(),
            addresses=Addresses(kafka_bootstrap=None, redis_url=None),
            probes=ExternalProbes(),
        )
    )


@pytest.fixture
def _catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("p.toml").write_text(CATALOGUE)
    monkeypatch.setenv("SLUICE_PROVIDERS_FILE", "p.toml")
    monkeypatch.setattr(doctor, "_is_installed", lambda _extra: True)


def test_the_simulated_provider_needs_nothing() -> None:
    """Without a file it is the only one, and ready."""
    assert (finding().status, finding().found) == (Status.OK, "simulated is ready")


@pytest.mark.usefixtures("_catalogue")
def test_a_missing_key_is_named_with_what_to_do() -> None:
    """Its value, once it is there, is nowhere."""
    found = finding()
    assert (found.status, found.found) == (Status.WARN, "free is ready; paid lacks PAID_KEY")
    assert "export PAID_KEY=" in found.todo
    found = finding(PAID_KEY="hidden")
    assert (found.status, found.found, found.todo) == (Status.OK, "free is ready; paid is ready", "")


@pytest.mark.usefixtures("_catalogue")
def test_a_missing_package_is_named_by_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """In words that can be copied."""
    monkeypatch.setattr(doctor, "_is_installed", lambda _extra: False)
    assert "`pip install 'sluice[openai]'`" in finding(PAID_KEY="hidden").todo


def test_an_extra_is_installed_when_all_its_packages_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names are those of our own package's metadata."""
    wanted = ["pytest>=8 ; extra == 'there'", "pytest ; extra == 'half'", "no-such-thing>=1; extra == 'half'", "rich"]
    monkeypatch.setattr("importlib.metadata.requires", lambda _name: wanted)
    assert doctor._is_installed("there")
    assert not doctor._is_installed("half")


def test_a_wrong_catalogue_is_a_warning_and_wrong_settings_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo has a catalogue of its own, and no settings of its own."""
    monkeypatch.setenv("SLUICE_PROVIDERS_FILE", "nowhere.toml")
    assert finding().status is Status.WARN
    assert "nowhere.toml" in finding().found
    monkeypatch.setenv("SLUICE_TOPIC_PARTITIONS", "0")
    assert (finding().status, finding().todo) == (Status.FAIL, "Run `sluice config`: it names each.")
