"""Old garbage is collected by how many connections there were, and not by how much the bridge remembers."""

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from websocket_bridge import garbage
from websocket_bridge.garbage import LEAST_OPENED, MOST_SECONDS, Garbage, collect_now_and_then


def test_it_is_due_after_so_many_connections() -> None:
    """And then not before as many again."""
    found = Garbage(now=0)
    assert not found.is_due(opened=LEAST_OPENED - 1, still_open=0, now=1)
    assert found.is_due(opened=LEAST_OPENED, still_open=0, now=2)
    assert not found.is_due(opened=LEAST_OPENED + 1, still_open=0, now=3)
    assert found.is_due(opened=2 * LEAST_OPENED, still_open=0, now=4)


def test_the_more_are_open_the_more_have_to_come() -> None:
    """What is open has to be looked through as well: the cost per connection stays the same."""
    found = Garbage(now=0)
    assert not found.is_due(opened=2_499, still_open=10_000, now=1)
    assert found.is_due(opened=2_500, still_open=10_000, now=1)


def test_it_is_due_now_and_then_in_any_case() -> None:
    """For what else leaves cycles behind."""
    found = Garbage(now=0)
    assert not found.is_due(opened=0, still_open=0, now=MOST_SECONDS - 1)
    assert found.is_due(opened=0, still_open=0, now=MOST_SECONDS)
    assert not found.is_due(opened=0, still_open=0, now=MOST_SECONDS + 1)


class _Knot:
    """A cycle."""

    def __init__(self) -> None:
        self.me = self


@asynccontextmanager
async def _collecting(opened: list[int]) -> AsyncIterator[None]:
    task = asyncio.create_task(collect_now_and_then(lambda: (opened[0], 0)))
    await asyncio.sleep(0)  # it begins
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_old_cycles_go_when_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python itself leaves them alone meanwhile, and has its own ways again in the end."""
    monkeypatch.setattr(garbage, "CHECK_INTERVAL_SECONDS", 0.01)
    before, opened = gc.get_threshold(), [0]
    async with _collecting(opened):
        knot = _Knot()
        gc.collect()  # now it is old
        gone = weakref.ref(knot)
        del knot
        kept = [[number] for number in range(500_000)]
        assert gone() is not None
        assert kept[-1]
        assert gc.get_threshold()[:2] == before[:2]
        opened[0] = LEAST_OPENED
        while gone() is not None:
            await asyncio.sleep(0.01)
    assert gc.get_threshold() == before
