"""Nothing is left of a call: no connection, no task, no file. And what is shared is nobody's to close."""

import asyncio
import contextlib
from collections.abc import Callable

import psutil
import pytest

from connectors.providers.base import Answered, Failed, Provider
from connectors.providers.http_client import new_http_client
from tests.providers.calls import a_call, answer_of, outcome_of
from tests.providers.contract.adapters import ADAPTERS, BY_TYPE, Adapter
from tests.providers.contract.trial import provider_at, trial

WITH_A_SERVER = [pytest.param(adapter, id=adapter.type) for adapter in ADAPTERS if adapter.wire]
ONE_OF_EACH_SDK = [pytest.param(BY_TYPE[name], id=name) for name in ("openai", "anthropic", "google")]
CALLS = 1_000
AT_ONCE = 25
FAILING = ("status-500", "reset-before-headers", "goodbye-mid-answer", "html", "cut-at-the-limit", "rate-limited")
HANGING = ("silence", "keep-alive-without-token", "stall")
CASES_BY_TURNS = (("good",), FAILING, HANGING)


@pytest.mark.parametrize("adapter", ONE_OF_EACH_SDK)
async def test_a_thousand_calls_leave_nothing_behind(adapter: Adapter) -> None:
    """A third answered, a third failed, a third cancelled: afterwards there are as many files and tasks as before."""
    async with trial(adapter) as tried:
        assert tried.server
        server = tried.server
        await run_calls(tried.provider, 6)  # what is made once stays: a thread that asked for the platform
        await within_time(lambda: server.connections_open == 0)
        files, tasks = psutil.Process().num_fds(), len(asyncio.all_tasks())
        ends = await run_calls(tried.provider, CALLS)
        await within_time(lambda: server.connections_open == 0)
        await within_time(lambda: psutil.Process().num_fds() <= files)
        await within_time(lambda: len(asyncio.all_tasks()) <= tasks)
    assert {end: ends.count(end) for end in set(ends)} == {"answered": 334, "failed": 333, "cancelled": 333}


@pytest.mark.parametrize("adapter", WITH_A_SERVER)
async def test_a_shared_client_stays_open(adapter: Adapter) -> None:
    """Closing one provider leaves the connections of the others alone."""
    async with new_http_client() as shared, trial(adapter, http_client=shared) as tried:
        assert tried.server
        first = provider_at(tried.server.root, adapter, http_client=shared)
        await answer_of(first, a_call(model="good"))
        await first.close()
        await answer_of(tried.provider, a_call(model="good"))
        await answer_of(tried.provider, a_call(model="good", stream=True))
        assert not shared.is_closed
        assert len(tried.server.exchanges) == 3


@pytest.mark.parametrize("adapter", WITH_A_SERVER)
async def test_an_own_client_is_closed(adapter: Adapter) -> None:
    """A provider that made its client ends it: nothing can be sent any more."""
    async with trial(adapter) as tried:
        assert tried.server
        provider = provider_at(tried.server.root, adapter)
        await provider.close()
        with contextlib.suppress(RuntimeError):  # some SDKs make a failure of it
            assert isinstance(await outcome_of(provider, a_call(model="good")), Failed)
        assert not tried.server.exchanges


async def run_calls(provider: Provider, count: int) -> list[str]:
    """Good, bad and cancelled calls by turns, many at once, whole and streamed. Returns how they ended."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> str:
        cases = CASES_BY_TURNS[number % 3]
        call = a_call(model=cases[number // 3 % len(cases)], stream=number % 2 == 0)
        async with gate:
            task = asyncio.create_task(outcome_of(provider, call))
            if cases is HANGING:
                # At once, or a little later: in a different phase each time.
                await asyncio.wait([task], timeout=number % 10 / 1000)
                task.cancel()
            await asyncio.wait([task])
        return "cancelled" if task.cancelled() else "answered" if isinstance(task.result(), Answered) else "failed"

    return list(await asyncio.gather(*(one(number) for number in range(count))))


async def within_time(holds: Callable[[], bool]) -> None:
    """Returns once it holds."""
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)
