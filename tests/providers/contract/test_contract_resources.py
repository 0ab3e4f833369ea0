"""Nothing is left of a call: no connection, no task, no file. And what is shared is nobody's to close."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack

import httpx2
import psutil

from connectors.providers.base import Answered, Failed
from connectors.providers.http_client import new_http_client
from tests.providers.calls import a_call, answer_of, outcome_of
from tests.providers.contract.adapters import BY_TYPE
from tests.providers.contract.trial import Trial, provider_at, trial

ONE_OF_EACH_SDK = ("openai", "anthropic", "google")
CALLS = 1_000
AT_ONCE = 25
FAILING = ("status-500", "reset-before-headers", "goodbye-mid-answer", "html", "cut-at-the-limit", "rate-limited")
HANGING = ("silence", "keep-alive-without-token", "stall")
CASES_BY_TURNS = (("good",), FAILING, HANGING)


async def test_a_thousand_calls_leave_nothing_behind() -> None:
    """Of three SDKs that share a client; a third answered, a third failed, a third cancelled: files and tasks are as
    many as before.
    """
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(new_http_client())
        trials = [await stack.enter_async_context(trial(BY_TYPE[name], http_client=client)) for name in ONE_OF_EACH_SDK]
        await run_calls(trials, 18)  # what is made once stays: a thread that asked for the platform
        await within_time(lambda: not connections(trials))
        files, tasks = psutil.Process().num_fds(), len(asyncio.all_tasks())
        ends = await run_calls(trials, CALLS)
        await within_time(lambda: not connections(trials))
        await within_time(lambda: psutil.Process().num_fds() <= files)
        await within_time(lambda: len(asyncio.all_tasks()) <= tasks)
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
    return sum(tried.server.connections_open for tried in trials)


async def run_calls(trials: list[Trial], count: int) -> list[str]:
    """Good, bad and cancelled calls by turns, many at once, whole and streamed. Returns how they ended."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> str:
        cases, provider = CASES_BY_TURNS[number % 3], trials[number // 3 % len(trials)].provider
        call = a_call(model=cases[number // 9 % len(cases)], stream=number % 2 == 0)
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
