"""Nothing is left of a call: no connection, no task, no file. And what is shared is nobody's to close."""

import asyncio
import gc
import itertools
from collections.abc import Callable

import psutil
import pytest

from connectors.providers.base import Provider
from connectors.providers.http_client import new_http_client
from tests.providers.calls import a_call, answer_of, events_of
from tests.providers.contract.adapters import ADAPTERS, BY_TYPE, Adapter
from tests.providers.contract.trial import provider_at, trial

WITH_A_SERVER = [pytest.param(adapter, id=adapter.type) for adapter in ADAPTERS if adapter.wire]
ONE_OF_EACH_SDK = [pytest.param(BY_TYPE[name], id=name) for name in ("openai", "anthropic", "google")]
CALLS = 1_000
AT_ONCE = 25
GOOD = ("good",)
FAILING = ("status-500", "reset-mid-stream", "bad-chunk", "html", "clean-end-without-end", "rate-limited")
HANGING = ("silence", "no-first-token", "stall")


@pytest.mark.parametrize("adapter", ONE_OF_EACH_SDK)
async def test_a_thousand_calls_leave_nothing_behind(adapter: Adapter) -> None:
    """A third answered, a third failed, a third cancelled: afterwards there are as many files and tasks as before."""
    async with trial(adapter) as tried:
        assert tried.server
        server = tried.server
        await run_calls(tried.provider, 3)  # what is made once, such as a thread that asks for the platform
        await within_time(lambda: server.connections_open == 0)
        files, tasks = open_files(), len(asyncio.all_tasks())
        await run_calls(tried.provider, CALLS)
        await within_time(lambda: server.connections_open == 0)
        gc.collect()
        await within_time(lambda: open_files() <= files)
        await within_time(lambda: len(asyncio.all_tasks()) <= tasks)
        assert len(server.exchanges) == CALLS + 3


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
        with pytest.raises(RuntimeError, match="closed"):
            await answer_of(provider, a_call(model="good"))
        assert not tried.server.exchanges


async def run_calls(provider: Provider, count: int) -> None:
    """Good, bad and cancelled calls by turns, some at once, whole and streamed."""
    kinds = itertools.cycle(zip(itertools.cycle(GOOD), itertools.cycle(FAILING), itertools.cycle(HANGING), strict=True))
    names = itertools.islice(itertools.chain.from_iterable(kinds), count)
    gate = asyncio.Semaphore(AT_ONCE)
    await asyncio.gather(*(one_call(provider, name, gate, streamed=number % 2 == 0) for number, name in enumerate(names)))


async def one_call(provider: Provider, name: str, gate: asyncio.Semaphore, *, streamed: bool) -> None:
    ...


def open_files() -> int:
    return psutil.Process().num_fds()


async def within_time(holds: Callable[[], bool]) -> None:
    """Returns once it holds."""
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)
