"""Whoever cancels a call, or leaves it, hangs up at once: in every phase, with the garbage collector switched off."""

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest

from connectors.providers.base import Text
from tests.providers.calls import a_call, events_of
from tests.providers.contract.adapters import ADAPTERS, Adapter
from tests.providers.contract.cases import BY_NAME, Where
from tests.providers.contract.trial import Trial, trial_at_no_server
from tests.support.fault_wire import PIECES

WITH_A_SERVER = [pytest.param(adapter, id=adapter.type) for adapter in ADAPTERS if adapter.wire]
PATIENCE_SECONDS = 30


@pytest.fixture(autouse=True)
def _no_garbage_collector() -> AsyncIterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize(
    ("phase", "streamed"),
    [("silence", False), ("silence", True), ("no-first-token", True), ("keep-alive-without-token", True)],
)
async def test_cancelling_before_the_first_token_hangs_up(tried: Trial, phase: str, streamed: bool) -> None:
    """Whether the call waits for headers or for text, the server sees the end of the connection."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        task = asyncio.create_task(events_of(tried.provider, a_call(model=phase, stream=streamed)))
        exchange = await tried.server.exchange()
        assert not exchange.hung_up.is_set()
        await cancelled(task)
        await exchange.hung_up.wait()


@pytest.mark.parametrize("phase", ["stall", "keep-alive-after-tokens"])
async def test_cancelling_between_tokens_hangs_up(tried: Trial, phase: str) -> None:
    """So it does while the call waits for the next piece."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        heard = asyncio.Event()
        task = asyncio.create_task(listen(tried, phase, heard))
        await heard.wait()
        exchange = await tried.server.exchange()
        assert not exchange.hung_up.is_set()
        await cancelled(task)
        await exchange.hung_up.wait()


async def test_cancelling_who_is_busy_with_a_piece_hangs_up(tried: Trial) -> None:
    """So it does while the caller works on a piece, and the provider is not even asked."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        heard = asyncio.Event()
        task = asyncio.create_task(listen(tried, "stall", heard, busy=True))
        await heard.wait()
        exchange = await tried.server.exchange()
        assert not exchange.hung_up.is_set()
        await cancelled(task)
        await exchange.hung_up.wait()


async def test_leaving_a_stream_early_hangs_up(tried: Trial) -> None:
    """Leaving the block after the first piece closes the connection before the block is over."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        async with tried.provider.open(a_call(model="stall", stream=True)) as events:
            assert await anext(events) == Text(PIECES[0])
            exchange = await tried.server.exchange()
            assert not exchange.hung_up.is_set()
        await exchange.hung_up.wait()


@pytest.mark.parametrize("adapter", WITH_A_SERVER)
@pytest.mark.parametrize("streamed", [False, True])
async def test_cancelling_while_connecting_ends_the_call(adapter: Adapter, streamed: bool) -> None:
    """Nobody answers yet, and nobody needs to."""
    async with trial_at_no_server(adapter, Where.FULL_QUEUE) as tried, asyncio.timeout(PATIENCE_SECONDS):
        task = asyncio.create_task(tried.outcome(BY_NAME["no-connection"], streamed=streamed))
        await asyncio.sleep(0)
        await cancelled(task)


async def test_a_call_that_is_over_leaves_no_connection(tried: Trial) -> None:
    """A bad chunk ends a call while the server has not even ended its answer."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await events_of(tried.provider, a_call(model="bad-chunk", stream=True))
        await tried.server.all_connections_closed()


async def listen(tried: Trial, phase: str, heard: asyncio.Event, *, busy: bool = False) -> None:
    """Takes all pieces, says so, and then waits for more; or, being busy, for nothing of the provider's."""
    pieces = 0
    async with tried.provider.open(a_call(model=phase, stream=True)) as events:
        async for event in events:
            assert isinstance(event, Text)
            pieces += 1
            if pieces == len(PIECES):
                heard.set()
                if busy:
                    await asyncio.Event().wait()


async def cancelled(task: asyncio.Task[object]) -> None:
    """Cancels it, and waits until it is over."""
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
