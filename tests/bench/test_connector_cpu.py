"""The benchmark of connectors measures what it says: the same call twice, and nothing but this process's CPU."""

import json

import pytest

from bench import connector_cpu
from bench.connector_cpu import Cost, both, measurable_types, run
from tests.providers.contract.adapters import ADAPTERS, Adapter
from tests.support.fault_cases import CASES
from tests.support.fault_server import FaultServer

WITH_A_SERVER = [pytest.param(adapter, id=adapter.type) for adapter in ADAPTERS if adapter.wire]


@pytest.mark.parametrize("adapter", WITH_A_SERVER)
@pytest.mark.parametrize("streamed", [False, True])
async def test_both_ask_the_same(adapter: Adapter, streamed: bool) -> None:
    """What is compared differs in who calls, and in nothing that the server sees of the call."""
    async with FaultServer({"m": CASES["good"]}, adapter.wire) as server, both(adapter, server.root) as (bare, ours):
        await bare(streamed)
        await ours(streamed)
    by_sdk, by_connector = (exchange.body for exchange in server.exchanges)
    assert without_spellings(by_sdk) == without_spellings(by_connector)
    assert len({exchange.path for exchange in server.exchanges}) == 1


def without_spellings(body: dict[str, object]) -> dict[str, object]:
    """What an API takes in two forms, in one."""
    said = json.dumps(body).replace(', "stream": false', "").replace('"role": "user", ', "")
    return dict(json.loads(said.replace(', "role": "user"', "")))


async def test_every_type_is_measured_both_ways() -> None:
    """A row for each, whole and streamed, with a cost that is there."""
    costs = await run(["openai", "anthropic", "google"], calls=2, rounds=1)
    assert {(cost.provider, cost.streamed) for cost in costs} == {
        (name, streamed) for name in ("openai", "anthropic", "google") for streamed in (False, True)
    }
    assert all(cost.bare_us > 0 and cost.connector_us > 0 for cost in costs)


def test_all_that_call_somebody_are_measurable() -> None:
    """A type that is added is measured as well."""
    with_a_server = {adapter.type for adapter in ADAPTERS if adapter.wire}
    assert with_a_server <= set(measurable_types())
    assert "simulated" not in measurable_types()


def test_what_is_on_top_is_a_share_of_the_bare_call() -> None:
    """A connector may cost less, where it takes a cheaper way through the SDK."""
    one = Cost(provider="p", streamed=False, bare_us=1000, connector_us=1150)
    assert one.on_top_percent == connector_cpu.AIM_PERCENT
    assert Cost(provider="p", streamed=True, bare_us=1000, connector_us=400).on_top_percent == -60
