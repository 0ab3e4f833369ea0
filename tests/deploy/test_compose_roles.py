"""docker-compose.yml starts our roles as the code understands it: commands, settings, providers, time to stop."""

import tomllib
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from connectors.kafka.client import client_options
from connectors.kafka.topics_admin import TopicOutcome, TopicStatus
from connectors.providers.catalogue_file import load_catalogue
from connectors.providers.registry import PROVIDER_TYPES
from connectors.settings import Settings
from policy.catalogue import Catalogue
from schemas.codec import SingleObjectCodec
from schemas.topics import TopicSpec
from sluice.cli import app
from sluice.commands import run, topics
from sluice.commands.run import Role
from streams.process import APP_STOP_SECONDS, SETTLE_SECONDS
from tests.deploy.compose import ROOT, compose_file, environment, is_one_shot, roles, seconds, setting_names
from tests.deploy.dockerfile import built_extras, stages
from websocket_bridge.bridge import Bridge

ROLES = roles()
PROVIDERS_FILE = ROOT / "deploy" / "providers.toml"
every_role = pytest.mark.parametrize("name", ROLES)


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither settings of the machine nor a sluice.toml of the working folder."""
    for name in setting_names():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def in_container(name: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings that a service has, with the image's own environment, and its mounted file found here."""
    given = {**stages()[-1].environment, **environment(ROLES[name])}
    given["SLUICE_PROVIDERS_FILE"] = str(mounted(name, given["SLUICE_PROVIDERS_FILE"]))
    for variable in given.keys() & setting_names():
        monkeypatch.setenv(variable, given[variable])
    return Settings()


def mounted(name: str, target: str) -> Path:
    """The file of the repository that a service finds at `target`."""
    (source,) = [config["source"] for config in ROLES[name]["configs"] if config["target"] == target]
    return ROOT / str(compose_file()["configs"][source]["file"])


def test_setting_names_cover_sections_aliases_and_optional_values() -> None:
    """The list that the next test relies on has plain, nested, twice nested and aliased names, and no others."""
    names = setting_names()
    assert {
        "SLUICE_CONFIG",
        "SLUICE_TOPIC_PARTITIONS",
        "SLUICE_BRIDGE__PORT",
        "SLUICE_KAFKA__TLS__CA_FILE",
        "KAFKA_BOOTSTRAP",
        "REDIS_URL",
        "SCHEMA_REGISTRY_URL",
    } <= names
    assert not {"SLUICE_BRIDGE", "SLUICE_KAFKA_BOOTSTRAP", "SLUICE_BRIDGE__PROT", "SLUICE_KAFKA__TLS"} & names


@every_role
def test_every_sluice_name_is_a_setting(name: str) -> None:
    """A misspelt or outdated name would be ignored by the settings, and nobody would notice."""
    given = {*ROLES[name]["environment"], *stages()[-1].environment}
    assert {variable for variable in given if variable.startswith("SLUICE_")} <= setting_names()


@pytest.mark.parametrize("path", sorted((ROOT / "deploy").glob("*.toml")), ids=lambda path: path.name)
def test_every_sluice_name_that_a_deployed_file_mentions_is_a_setting(path: Path) -> None:
    """Also in the values of TOML files: they name environment variables."""
    texts = str(tomllib.loads(path.read_text(encoding="utf-8"))).replace("'", " ").split()
    assert {text for text in texts if text.startswith("SLUICE_")} <= setting_names()


@every_role
def test_its_settings_are_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The role would start with them: inside, Kafka and Redis are found by the names of their services."""
    settings = in_container(name, monkeypatch)
    assert settings.kafka_bootstrap == "kafka:9092"
    assert settings.redis_url.get_secret_value() == "redis://redis:6379/0"
    assert settings.ops.port != 0


def test_the_providers_can_be_loaded() -> None:
    """deploy/providers.toml passes every check of the real reader."""
    assert set(load_catalogue(PROVIDERS_FILE).providers) == {"simulated", "openai"}


def test_every_provider_has_a_lane() -> None:
    """A provider without a service would let its requests wait for ever."""
    lanes = {service["command"][2] for service in ROLES.values() if service["command"][:2] == ["run", "lane"]}
    assert lanes == set(load_catalogue(PROVIDERS_FILE).providers)


def test_the_image_has_what_its_providers_need() -> None:
    """The extra of each provider's type is one of those that the image is built with."""
    needed = {PROVIDER_TYPES[entry.type].extra for entry in load_catalogue(PROVIDERS_FILE).providers.values()}
    assert needed - {None} <= built_extras()


@pytest.mark.parametrize("name", [name for name in ROLES if ROLES[name]["command"][0] == "run"])
def test_the_command_line_runs_its_role(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sluice run ...` takes the arguments, and gets to the role that the service is named after."""
    started: list[tuple[Role, str | None]] = []

    async def record(role: Role, provider: str | None, _settings: Settings, _catalogue: Catalogue) -> int:
        started.append((role, provider))
        return 0

    in_container(name, monkeypatch)
    monkeypatch.setattr(run, "_run", record)
    monkeypatch.setattr(run, "configure_logs", lambda _settings, **_: None)
    monkeypatch.setattr(run, "configure_tracing", lambda _name: None)
    outcome = CliRunner().invoke(app, ROLES[name]["command"])
    assert outcome.exit_code == 0, outcome.output
    ((role, provider),) = started
    assert name == (role if provider is None else f"{role}-{provider}")


def test_every_role_has_a_service() -> None:
    """A role that is added is deployed as well."""
    commands = [service["command"] for service in ROLES.values()]
    assert {command[1] for command in commands if command[0] == "run"} == set(Role)


def test_the_one_shot_creates_the_topics_of_every_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    """`topics` runs `sluice topics create`, which asks Kafka for the topics of these very providers."""
    asked: list[str] = []

    async def create(_settings: Settings, specs: list[TopicSpec], *, dry_run: bool) -> list[TopicOutcome]:
        asked.extend(spec.name for spec in specs if not dry_run)
        return [TopicOutcome(name=spec.name, status=TopicStatus.CREATED) for spec in specs]

    async def reachable(_settings: Settings) -> None:
        pass

    in_container("topics", monkeypatch)
    monkeypatch.setattr(topics, "create_topics", create)
    monkeypatch.setattr(topics, "check_access", reachable)
    outcome = CliRunner().invoke(app, ROLES["topics"]["command"])
    assert outcome.exit_code == 0, outcome.output
    assert {"llm.requests", "llm.lane.simulated.high", "llm.lane.openai.low"} <= set(asked)


@pytest.mark.parametrize("name", [name for name in ROLES if not is_one_shot(ROLES[name])])
def test_it_has_time_to_drain(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker kills no sooner than the worker itself would have given up."""
    drain_seconds = in_container(name, monkeypatch).worker.drain_seconds
    assert seconds(ROLES[name]["stop_grace_period"]) > drain_seconds + SETTLE_SECONDS + APP_STOP_SECONDS


def test_the_bridge_serves_its_page_on_the_published_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts to serve the container's addresses, on the port that is published."""
    settings = in_container("bridge", monkeypatch)
    Bridge(
        settings,
        SingleObjectCodec(),
        client_options=client_options(settings),
        registry=CollectorRegistry(),
        insecure_public=settings.bridge.insecure_public,
    )
    (published,) = ROLES["bridge"]["ports"]
    assert settings.bridge.host == "0.0.0.0"  # noqa: S104 - of the container
    assert published.endswith(f":{settings.bridge.port}")
