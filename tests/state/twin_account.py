"""Two stores that make the same steps, and what must hold in both after each of them."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from connectors.state.base import Known, Lease, StateUnavailableError
from tests.state.likeness import alike, as_first
from tests.state.worlds import MemoryWorld, World

T = TypeVar("T")
Pair = tuple[T, T]

IDS = [f"r{number}" for number in range(4)]


@dataclass(frozen=True)
class Task:
    """A task as Kafka has it. Its version may differ between the two stores, where it came from their clocks."""

    request_id: str
    versions: Pair[int]
    attempt: int
    size_bytes: int
    deadline_at: int
    redrives: int = 0


class TwinAccount:
    """Makes a step in two stores, sometimes twice as after a lost reply, and keeps account of what must hold."""

    def __init__(self, runner: asyncio.Runner, world: World) -> None:
        self.runner = runner
        self.worlds: Pair[World] = (MemoryWorld(), world)
        self.began_ms = tuple(world.now_ms() for world in self.worlds)
        self.passed_ms = 0
        self.moment = 0
        self.names = 0
        self.sizes: dict[str, int] = {}
        self.counted: dict[str, int] = {}
        self.before: dict[str, Known] = {}
        self.fences: Pair[dict[str, int]] = ({}, {})
        self.winners: dict[str, object] = {}
        self.begun_again: set[str] = set()
        """Requests that the step just made may have brought into another life."""
        self.cancelled: set[str] = set()
        """Requests that somebody has called off, in this life or in one before."""
        self.tasks: list[Task] = []
        self.leases: list[tuple[Task, Pair[Lease]]] = []
        self.sightings: list[Pair[Known]] = []

    def both(self, step: Callable[[int, World], Coroutine[Any, Any, T]], chance: Random | None = None) -> Pair[T]:
        """The replies of both stores, which are alike; so are those to the same step again, which is up to chance."""

        async def make() -> tuple[T, T]:
            first, second = [await answer(step(index, world)) for index, world in enumerate(self.worlds)]
            return first, second

        self.names += 1
        replies = self.runner.run(make())
        assert alike(replies[0]) == alike(replies[1])
        if chance is not None and chance.random() < 0.3:
            again = self.runner.run(make())
            assert [as_first(reply) for reply in again] == [as_first(reply) for reply in replies]
        return replies

    def _deadline_ms(self, world: World, deadline_at: int) -> int:
        return world.now_ms() + deadline_at - self.passed_ms

    def _what_is_known_goes_only_forward(self) -> None:
        first, _ = self.both(lambda _, world: world.store.look(IDS))
        for known in first:
            before = self.before.get(known.request_id)
            if before is None or known.request_id in self.begun_again:
                continue
            assert known.version >= before.version
            if before.state.is_terminal:
                assert (known.state, known.version) == (before.state, before.version)
                assert known.outcome in (before.outcome, None)
        for request_id in self.begun_again:
            self.winners.pop(request_id, None)
        self.begun_again = set()
        self.before = {known.request_id: known for known in first}

    def _counts_are_the_truth(self) -> None:
        truth = (len(self.counted), sum(self.counted.values()))
        assert self.both(lambda _, world: world.store.outstanding()) == (truth, truth)
        assert self.both(lambda _, world: told(world)) == (sorted(self.counted), sorted(self.counted))
        due, _ = self.both(lambda _, world: due_in(world))
        assert set(due) <= set(self.counted)

    def _known(self, request_id: str) -> Known | None:
        return self._known_to_both(request_id)[0]

    def _known_to_both(self, request_id: str) -> Pair[Known | None]:
        async def look(_: int, world: World) -> list[Known]:
            return await world.store.look([request_id])

        first, second = self.both(look)
        return next(iter(first), None), next(iter(second), None)

    def _begins(self, request_id: str) -> None:
        self.begun_again.add(request_id)

    def _forget(self, request_id: str) -> None:
        self._begins(request_id)
        for kept in (self.sizes, self.counted):
            kept.pop(request_id, None)

    def _won(self, request_id: str, winner: object) -> None:
        """Nobody else did in this life."""
        before = self.before.get(request_id)
        if before is not None and before.state.is_terminal:
            assert self.winners.get(request_id) == winner
        self.winners[request_id] = winner


async def answer(step: Coroutine[Any, Any, Any]) -> Any:
    """Its reply; one that is refused as long as the store is not restored is a reply too."""
    try:
        return await step
    except StateUnavailableError as error:
        return f"{error.step} is not possible yet"


async def told(world: World) -> list[str]:
    return sorted({request_id async for batch in world.store.counted() for request_id in batch})


async def due_in(world: World) -> list[str]:
    return sorted(await world.store.overdue(limit=100))
