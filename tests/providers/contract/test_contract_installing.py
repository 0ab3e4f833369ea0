"""Who does not serve a lane needs nothing of its SDK; and who lacks it is told how to get it."""

import subprocess
import sys

import pytest

from connectors.providers.errors import MissingExtraError
from connectors.providers.registry import PROVIDER_TYPES, build_provider
from policy.catalogue import ProviderEntry
from tests.providers.contract.adapters import BY_TYPE, KEY, KEY_VARIABLE

SDKS = {
    "openai": "openai",
    "azure_openai": "openai",
    "openrouter": "openai",
    "vllm": "openai",
    "openai_compatible": "openai",
    "anthropic": "anthropic",
    "google": "google.genai",
}


def test_no_sdk_is_imported_by_the_registry() -> None:
    """Every process reads it, to check options; SDKs cost some hundred milliseconds and as many megabytes."""
    program = (
        "import sys\n"
        "import connectors.providers.registry\n"
        "import connectors.providers.catalogue_file\n"
        "heavy = {'openai', 'anthropic', 'google.genai', 'httpx2', 'llama_cpp', 'azure'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("package", ["its SDK", "httpx2"])
@pytest.mark.parametrize(("kind", "sdk"), SDKS.items())
def test_a_missing_package_names_the_extra(kind: str, sdk: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an SDK is not installed the message says how to get it."""
    for name in [name for name in sys.modules if name.startswith("connectors.providers.")]:
        if name not in {"connectors.providers.registry", "connectors.providers.errors"}:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, sdk if package == "its SDK" else package, None)  # type: ignore[arg-type]
    entry = ProviderEntry.model_validate(BY_TYPE[kind].full_entry("http://127.0.0.1:9"))
    extra = PROVIDER_TYPES[kind].extra
    with pytest.raises(MissingExtraError, match=rf"sluice\[{extra}\].*uv sync --extra {extra}"):
        build_provider("tried", entry, environ={KEY_VARIABLE: KEY})
