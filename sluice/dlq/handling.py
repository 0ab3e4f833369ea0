"""Handles letters one after the other, some at a time: what is to be done with each is given. Then it is marked."""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from schemas.vocabulary import DeadLetterAction
from sluice.dlq.letters import LetterFilter, StoredLetter
from sluice.dlq.mailbox import Ends, Found, Mailbox
from sluice.dlq.pace import Pace

AT_ONCE = 16
"""Letters whose records are in memory: 4 MiB each at most."""
FINISH_SECONDS = 10.0
"""For those that are under way when it is interrupted: sent and marked is better than sent."""
REMEMBERED_REPEATS = 100_000
REMEMBERED_REFUSALS = 1_000


class RefusedError(Exception):
    """This letter cannot be handled. The message says why."""


@dataclass(kw_only=True)
class Plan:
    """What a run would do: the letters up to `ends` that match. `handled` are marked already, and left out."""

    ends: Ends
    total: int = 0
    handled: int = 0
    categories: Counter[str] = field(default_factory=Counter)
    to_be_refused: int = 0


@dataclass(kw_only=True)
class Progress:
    """How far a run is. `begun` counts what was sent or written before its mark was."""

    begun: int = 0
    done: int = 0
    handled_by_others: int = 0
    refused: int = 0
    refusals: list[tuple[StoredLetter, str]] = field(default_factory=list)

    @property
    def settled(self) -> int:
        return self.done + self.refused + self.handled_by_others


Handle = Callable[[Found], Awaitable[None]]


async def plan(
    mailbox: Mailbox,
    wanted: LetterFilter,
    *,
    limit: int | None = None,
    refusal: Callable[[Found], str | None] = lambda _: None,
) -> Plan:
    """Counts what matches, and changes nothing."""
    found_plan = Plan(ends=await mailbox.ends())
    async for found in mailbox.read(since=wanted.since, ends=found_plan.ends):
        if found.first is not None or not wanted.matches(found.stored):
            continue
        if found.handled is not None:
            found_plan.handled += 1
            continue
        if found_plan.total == limit:
            break
        found_plan.total += 1
        found_plan.categories[found.stored.letter.category] += 1
        found_plan.to_be_refused += refusal(found) is not None
    return found_plan


class Handling:
    """One run over the letters. `progress` can be read at any time, also after it was cancelled."""

    def __init__(self, mailbox: Mailbox, action: DeadLetterAction, handle: Handle, *, pace: Pace | None = None) -> None:
        self.progress = Progress()
        self.on_progress: Callable[[], object] = lambda: None
        self._mailbox = mailbox
        self._action = action
        self._handle = handle
        self._pace = pace or Pace(None)
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._repeats: deque[Found] = deque(maxlen=REMEMBERED_REPEATS)

    async def run(self, wanted: LetterFilter, ends: Ends, *, limit: int | None = None) -> None:
        """Handles and marks what matches up to `ends`. What is under way when it is cancelled is brought to its end."""
        try:
            await self._begin_all(wanted, ends, limit)
        finally:
            if self._tasks:
                _, unfinished = await asyncio.wait(self._tasks, timeout=FINISH_SECONDS)
                for task in unfinished:
                    task.cancel()
                if unfinished:
                    await asyncio.wait(unfinished)
        if self._failure is not None:
            raise self._failure
        await self._mark_repeats()

    async def _begin_all(self, wanted: LetterFilter, ends: Ends, limit: int | None) -> None:
        begun = 0
        async for found in self._mailbox.read(since=wanted.since, ends=ends):
            if found.handled is not None or not wanted.matches(found.stored):
                continue
            if found.first is not None:
                self._repeats.append(found)
                continue
            if begun == limit:
                return
            begun += 1
            await self._pace.keep()
            await self._slots.acquire()
            if self._failure is not None:
                return
            await self._mailbox.listen()
            task = asyncio.create_task(self._one(found))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _one(self, found: Found) -> None:
        progress = self.progress
        try:
            if self._mailbox.marks.of(found.stored) is not None:
                progress.handled_by_others += 1
                return
            await self._handle(found)
            progress.begun += 1
            await self._mailbox.mark(found.stored, self._action)
            progress.done += 1
        except RefusedError as refusal:
            progress.refused += 1
            if len(progress.refusals) < REMEMBERED_REFUSALS:
                progress.refusals.append((found.stored, str(refusal)))
        except Exception as error:  # noqa: BLE001 - it ends the run, which raises it
            self._failure = self._failure or error
        finally:
            self._slots.release()
            self.on_progress()

    async def _mark_repeats(self) -> None:
        """The repeats of what is marked: they would be shown again when retention has removed the first."""
        for found in self._repeats:
            first = found.first
            if first is not None and self._mailbox.marks.has(first):
                await self._mailbox.mark(found.stored, self._action)
