"""docs/adding-a-provider.md, followed step by step: what stands there is registered, and passes the contract."""

import asyncio
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.providers import registry
from connectors.providers.catalogue_file import load_catalogue
from connectors.providers.errors import ProviderConfigurationError
from connectors.providers.registry import ProviderType, build_provider
from policy.catalogue import ProviderEntry
from tests.providers.calls import a_call, events_of
from tests.providers.contract import adapters
from tests.providers.contract.adapters import KEY, Adapter
from tests.providers.contract.cases import CASES, Case
from tests.providers.contract.columns import Columns
from tests.providers.contract.trial import seen, trial

PAGE = Path(__file__).parents[3] / "docs" / "adding-a-provider.md"
_BLOCK = re.compile(r"^```(?:python|toml)\n# (?P<path>\S+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
CELLS = [
    pytest.param(case, streamed, id=f"{case.name}-{'streamed' if streamed else 'whole'}")
    for case in CASES
    for streamed in (False, True)
    if case.expected(streamed=streamed)
]


@pytest.fixture(scope="module")
def blocks() -> dict[str, str]:
    """The page's code, by the path that each block names."""
    return {found["path"]: found["code"] for found in _BLOCK.finditer(PAGE.read_text(encoding="utf-8"))}


@pytest.fixture(scope="module")
def acme(blocks: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adapter]:
    """The page's provider, registered as the page has it, until this module is over."""
    folder = tmp_path_factory.mktemp("page")
    modules = {}
    for path in ("connectors/providers/acme.py", "connectors/providers/acme_calls.py"):
        file = folder / Path(path).name
        file.write_text(blocks[path], encoding="utf-8")
        name = path.removesuffix(".py").replace("/", ".")
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec
        assert spec.loader
        modules[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules[name])
    registered = eval(  # noqa: S307 - our own page
        f"{{{blocks['connectors/providers/registry.py']}}}",
        {"acme": modules["connectors.providers.acme"], "ProviderType": ProviderType},
    )
    registry.PROVIDER_TYPES.update(registered)
    (adapter,) = eval(f"[{blocks['tests/providers/contract/adapters.py']}]", vars(adapters))  # noqa: S307 - likewise
    yield adapter
    for kind in registered:
        del registry.PROVIDER_TYPES[kind]
    for name in modules:
        del sys.modules[name]


@pytest.mark.parametrize(("case", "streamed"), CELLS)
async def test_the_page_s_provider_keeps_the_contract(
    acme: Adapter, columns: Columns, case: Case, streamed: bool
) -> None:
    """Every case ends as in the table, with one request."""
    outcome, requests = await columns.cell(acme, case, streamed=streamed)
    assert seen(outcome) == case.expected(streamed=streamed)
    assert requests == 1
    assert KEY not in repr(outcome)


@pytest.mark.parametrize(("behaviour", "streamed"), [("silence", False), ("silence", True), ("stall", True)])
async def test_the_page_s_provider_hangs_up(acme: Adapter, behaviour: str, streamed: bool) -> None:
    """A call that is cancelled closes its connection."""
    async with trial(acme) as tried, asyncio.timeout(30):
        task = asyncio.create_task(events_of(tried.provider, a_call(model=behaviour, stream=streamed)))
        exchange = await tried.server.exchange()
        task.cancel()
        await exchange.hung_up.wait()
        await asyncio.wait([task])


def test_the_page_s_configuration_is_valid(acme: Adapter, blocks: dict[str, str], tmp_path: Path) -> None:
    """As `sluice config` would read it; and without its key it is not built."""
    path = tmp_path / "providers.toml"
    path.write_text(blocks["providers.toml"], encoding="utf-8")
    entry = load_catalogue(path).providers["acme"]
    with pytest.raises(ProviderConfigurationError, match="ACME_API_KEY"):
        build_provider("acme", entry, environ={})
    assert acme.type == entry.type


def test_the_page_s_provider_needs_an_address(acme: Adapter) -> None:
    """What is misconfigured is told before anything is called."""
    entry = ProviderEntry(type=acme.type, models=["m"])
    with pytest.raises(ProviderConfigurationError, match="base_url"):
        build_provider("acme", entry, environ={"ACME_API_KEY": "x"})
