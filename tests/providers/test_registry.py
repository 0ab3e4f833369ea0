import subprocess
import sys
from typing import Any

import pytest

from connectors.providers.errors import MissingExtraError, ProviderConfigurationError
from connectors.providers.registry import PROVIDER_TYPES, build_provider
from policy.catalogue import ProviderEntry


def an_entry(**parts: Any) -> ProviderEntry:
    return ProviderEntry.model_validate({"type": "simulated", "models": ["m"]} | parts)


async def test_a_provider_is_built_by_its_type() -> None:
    """It carries the name that it has in the file."""
    provider = build_provider("mine", an_entry(options={"latency_ms": 0}))
    assert provider.name == "mine"
    await provider.close()


def test_an_unknown_type_names_those_that_exist() -> None:
    """A misspelt type is answered with the list."""
    with pytest.raises(ProviderConfigurationError, match="one of: simulated, openai"):
        build_provider("mine", an_entry(type="simulatde"))


@pytest.mark.parametrize("kind", PROVIDER_TYPES)
def test_wrong_options_name_the_option(kind: str) -> None:
    """Every type checks its options, and says which one is wrong."""
    with pytest.raises(ProviderConfigurationError, match=r"options\.no_such_option"):
        build_provider("mine", an_entry(type=kind, options={"no_such_option": 1}), environ={"OPENAI_API_KEY": "x"})


@pytest.mark.parametrize("package", ["openai", "httpx2"])
def test_a_missing_package_names_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an SDK is not installed the message says how to get it."""
    for name in [name for name in sys.modules if name.startswith("connectors.providers.")]:
        if name not in {"connectors.providers.registry", "connectors.providers.errors"}:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"sluice\[openai\].*uv sync --extra openai") as caught:
        build_provider("mine", an_entry(type="openai"), environ={"OPENAI_API_KEY": "x"})
    assert caught.value.extra == "openai"


def test_no_sdk_is_imported_before_its_provider_is_built() -> None:
    """Reading a catalogue with every type, and building the simulated provider, needs no SDK."""
    program = (
        "import sys; from pathlib import Path\n"
        "from connectors.providers.catalogue_file import load_catalogue\n"
        "from connectors.providers.registry import build_provider\n"
        "catalogue = load_catalogue(Path('providers.toml'))\n"
        "assert {entry.type for entry in catalogue.providers.values()} == {'simulated', 'openai'}\n"
        "build_provider('simulated', catalogue.providers['simulated'])\n"
        "assert not {'openai', 'httpx2'} & set(sys.modules), 'an SDK was imported'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
