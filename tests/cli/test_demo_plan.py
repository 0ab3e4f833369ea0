"""The demo's provider, and what it asks for."""

from pathlib import Path
from typing import Any

import pytest

from connectors.providers.catalogue_file import load_catalogue
from sluice.demo.plan import DemoProvider, Plan, PlanError, write_catalogue
from tests.cli.conftest import Invoke


def plan(**fields: Any) -> Plan:
    given = {"provider": DemoProvider.SIMULATED, "model": None, "latency_ms": 900.0, "concurrency": 32, **fields}
    return Plan(run="demo-1", essays=[], rate=6, timeout_seconds=300, keep=False, open_page=False, **given)


@pytest.mark.parametrize(
    ("fields", "environ"),
    [
        ({}, {}),
        ({"latency_ms": 0.0}, {}),
        ({"provider": DemoProvider.OPENAI}, {"OPENAI_API_KEY": "sk-hidden"}),
        ({"provider": DemoProvider.OPENAI, "model": 'm"x'}, {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}),
    ],
)
def test_the_catalogue_that_is_written_is_valid(
    fields: dict[str, Any], environ: dict[str, str], tmp_path: Path
) -> None:
    """It is read as any `providers.toml`, and holds the name of a key, never the key."""
    pytest.importorskip("openai")
    one, path = plan(**fields), tmp_path / "providers.toml"
    write_catalogue(path, one.provider, one.settings_of_provider(environ))
    (entry,) = load_catalogue(path).providers.values()
    assert entry.type == one.provider
    assert entry.concurrency == 32
    assert entry.model == (one.model or entry.models[0])
    assert entry.api_key_env == ("OPENAI_API_KEY" if "OPENAI_API_KEY" in environ else None)
    assert "sk-hidden" not in path.read_text()


@pytest.mark.parametrize(
    ("fields", "environ", "said"),
    [
        ({"provider": DemoProvider.OPENAI}, {}, "needs OPENAI_API_KEY, or OPENAI_BASE_URL"),
        ({"provider": DemoProvider.OPENAI}, {"OPENAI_BASE_URL": "localhost:8000"}, "OPENAI_BASE_URL=localhost:8000"),
        ({"model": "gpt-5"}, {}, "--model goes with --provider openai"),
    ],
)
def test_what_cannot_work_is_told_before_anything_starts(
    fields: dict[str, Any], environ: dict[str, str], said: str
) -> None:
    """With what to do about it."""
    with pytest.raises(PlanError, match=said):
        plan(**fields).settings_of_provider(environ)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--provider", "openai"), "--provider openai needs OPENAI_API_KEY"),
        (("--model", "m"), "--model goes with"),
        (("--essays", "1"), "Usage: "),
        (("--provider", "nobody"), "Usage: "),
    ],
    ids=" ".join,
)
def test_the_demo_called_wrongly_starts_nothing(arguments: tuple[str, ...], said: str, invoke: Invoke) -> None:
    """It says so, and leaves no folder behind."""
    result = invoke("demo", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(said)
    assert not Path("../state").exists()


def test_the_demo_on_a_kafka_that_is_away_says_which(invoke: Invoke) -> None:
    """Nothing is printed to standard output, also with --json."""
    result = invoke("demo", "--json", KAFKA_BOOTSTRAP="127.0.0.1:1", REDIS_URL="redis://127.0.0.1:1/0")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "=127.0.0.1:1" in result.stderr
    assert "cannot be used" in result.stderr
