import re
from pathlib import Path

import pytest

from connectors.providers.catalogue_file import load_catalogue
from connectors.providers.registry import PROVIDER_TYPES
from policy.catalogue import SIMULATED_ONLY, CatalogueError

EXAMPLE = Path(__file__).parents[2] / "providers.toml"
GOOD = """\
[providers.one]
type = "simulated"
models = ["m"]
options = { latency_ms = 1 }

[providers.two]
type = "openai"
models = ["gpt-x"]

[providers.two.options]
organization = "org"
"""


def refused(tmp_path: Path, text: str) -> str:
    path = tmp_path / "providers.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CatalogueError) as caught:
        load_catalogue(path)
    assert str(caught.value).startswith(str(path))
    return str(caught.value).removeprefix(str(path))


def test_the_example_at_the_root_is_good() -> None:
    """providers.toml can be used as it is, and nothing in it costs money unless asked for by name."""
    catalogue = load_catalogue(EXAMPLE)
    assert set(catalogue.providers) == {"simulated", "openai"}
    assert catalogue.default_provider == "simulated"


def test_the_example_shows_every_type(tmp_path: Path) -> None:
    """What stands there as a comment can be used as it is, once it is none."""
    text = re.sub(
        r"^# (?=\[providers\.|\S+ = |\"\S+\" = )", "", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    path = tmp_path / "providers.toml"
    path.write_text(text, encoding="utf-8")
    entries = load_catalogue(path).providers
    assert {entry.type for entry in entries.values()} == PROVIDER_TYPES.keys()
    for entry in entries.values():
        variable = PROVIDER_TYPES[entry.type].key_variable(entry)
        assert variable == entry.api_key_env


def test_no_file_is_the_simulated_provider_alone() -> None:
    """Nothing has to be configured for a first look."""
    assert load_catalogue(None) is SIMULATED_ONLY


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"openai"', '"opnai"', ":7: providers.two.type: there is no provider type 'opnai'; one of: simulated, openai"),
        ("latency_ms = 1", "latency_ms = -1", ":4: providers.one.options.latency_ms: "),
        ("latency_ms", "latencyms", "did you mean latency_ms?"),
        ("organization", "organisation", ":11: providers.two.options.organisation: there is no such setting; did you"),
        ('organization = "org"', "organization = 5", ":11: providers.two.options.organization: "),
        ("[providers.two]", "[providers.two", ":6: "),
    ],
)
def test_what_a_type_does_not_take_is_found_with_its_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    """Types and options are judged by those who know them, at the start, with the line to change."""
    assert said in refused(tmp_path, GOOD.replace(old, new))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The message leads to the path."""
    path = tmp_path / "nowhere.toml"
    with pytest.raises(CatalogueError, match=r"nowhere\.toml: cannot be read"):
        load_catalogue(path)


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are an error of the file, not a crash."""
    path = tmp_path / "providers.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CatalogueError, match=r"providers\.toml: cannot be read"):
        load_catalogue(path)


def test_a_missing_key_does_not_keep_the_others_from_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are looked for where a lane runs, not by every process that reads the file."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    path = tmp_path / "providers.toml"
    path.write_text(GOOD, encoding="utf-8")
    assert "two" in load_catalogue(path).providers
