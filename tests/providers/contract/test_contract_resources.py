"""Nothing is left of a call: no connection, no task, no file. And what is shared is nobody's to close."""

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx2
import psutil
import pytest

from connectors.providers.base import Answered, Failed
from connectors.providers.http_client import new_http_client
from tests.providers.calls import a_call, answer_of, outcome_of
from tests.providers.contract.adapters import ADAPTERS, BY_TYPE, Adapter
from tests.providers.contract.cases import BY_NAME
from tests.providers.contract.trial import Trial, provider_at, trial

CALLS = 1_000
AT_ONCE = 25


@dataclass(frozen=True)
class Turns:
    """Cases by turns: those that go well, those that go wrong, and those that are cancelled, for they never end."""

    good: tuple[str, ...]
    failing: tuple[str, ...]
    hanging: tuple[str, ...]


WITH_A_SERVER = Turns(
    ("good",),
    ("status-500", "reset-before-headers", "goodbye-mid-answer", "html", "cut-at-the-limit", "rate-limited"),
    ("silence", "keep-alive-without-token", "stall"),
)
WITHOUT = {
    "simulated": Turns(("good",), ("quota", "rate-limited", "context-length"), ("silence", "stall")),
    "llama_cpp": Turns(("good",), ("cut-at-the-limit",), ("structured",)),
}
GROUPS = [
    pytest.param([adapter for adapter in ADAPTERS if adapter.wire], id="all-with-a-server"),
    *(pytest.param([BY_TYPE[name]], id=name) for name in WITHOUT),
]


@pytest.mark.parametrize("adapters", GROUPS)
async def test_a_thousand_calls_leave_nothing_behind(adapters: list[Adapter]) -> None:
    """A third answered, a third failed, a third cancelled: connections, files, tasks and threads are as many as before.

    Types that call a server share a client, as providers of one process do.
    """
    for package in adapters[0].needs:
        pytest.importorskip(package)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(new_http_client())
        trials = [await stack.enter_async_context(trial(adapter, http_client=client)) for adapter in adapters]
        # What is made once stays: a model and its thread, a thread that asked for the platform.
        await run_calls(trials, 6 * len(trials))
        await within_time(lambda: not connections(trials))
        before = kept()
        ends = await run_calls(trials, CALLS)
        await within_time(lambda: not connections(trials))
        await within_time(lambda: all(now <= then for now, then in zip(kept(), before, strict=True)))
    assert Counter(ends) == {"answered": 334, "failed": 333, "cancelled": 333}


async def test_a_shared_client_stays_open(tried: Trial, http_client: httpx2.AsyncClient) -> None:
    """Closing one provider leaves the connections of the others alone."""
    first = provider_at(tried.server.root, tried.adapter, http_client=http_client)
    await answer_of(first, a_call(model="good"))
    await first.close()
    await answer_of(tried.provider, a_call(model="good"))
    await answer_of(tried.provider, a_call(model="good", stream=True))
    assert not http_client.is_closed
    assert len(tried.server.exchanges) == 3


async def test_an_own_client_is_closed(tried: Trial) -> None:
    """A provider that made its client ends it: nothing can be sent any more."""
    provider = provider_at(tried.server.root, tried.adapter)
    await provider.close()
    with contextlib.suppress(RuntimeError):  # some SDKs make a failure of it
        assert isinstance(await outcome_of(provider, a_call(model="good")), Failed)
    assert not tried.server.exchanges


def connections(trials: list[Trial]) -> int:
    """How many are open, as the servers see it."""
    return sum(tried.fault_server.connections_open for tried in trials if tried.fault_server)


def kept() -> tuple[int, int, int]:
    """Files (sockets among them), tasks and threads of this process."""
    return psutil.Process().num_fds(), len(asyncio.all_tasks()), threading.active_count()


async def run_calls(trials: list[Trial], count: int) -> list[str]:
    """Good, bad and cancelled calls by turns, many at once, whole and streamed. Returns how they ended."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> str:
        tried = trials[number // 3 % len(trials)]
        turns = WITHOUT.get(tried.adapter.type, WITH_A_SERVER)
        cases = (turns.good, turns.failing, turns.hanging)[number % 3]
        case = BY_NAME[cases[number // 3 // len(trials) % len(cases)]]
        call = tried.call(case, streamed=number % 2 == 0)
        async with gate:
            task = asyncio.create_task(outcome_of(tried.provider, call))
            if cases is turns.hanging:
                # At once, or a little later: in a different phase each time.
                await asyncio.wait([task], timeout=number % 10 / 1000)
                task.cancel()
            await asyncio.wait([task])
        return "cancelled" if task.cancelled() else "answered" if isinstance(task.result(), Answered) else "failed"

    return list(await asyncio.gather(*(one(number) for number in range(count))))


async def within_time(holds: Callable[[], bool]) -> None:
    """Returns once it holds."""
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)
