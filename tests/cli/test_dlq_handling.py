"""A run over letters, without Kafka: what others do meanwhile, what is cut short, and what goes wrong."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from aiokafka.errors import KafkaTimeoutError

from schemas.dead_letter import DeadLetter
from schemas.vocabulary import DeadLetterAction
from sluice.dlq import handling as handling_module
from sluice.dlq.handling import AT_ONCE, Handling, RefusedError
from sluice.dlq.letters import LetterFilter, Position, StoredLetter
from sluice.dlq.mailbox import Found
from sluice.dlq.marks import Marks, mark_of

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def letter(offset: int) -> StoredLetter:
    described = DeadLetter(
        message="m", original_topic="t", original_partition=0, original_offset=offset, size_bytes=1, request_id="r"
    )
    return StoredLetter(letter=described, position=Position(0, offset), died_at=NOW)


class MailboxInMemory:
    """So many letters. `others` are marked by somebody else after the run has begun to read."""

    def __init__(self, count: int, *, others: frozenset[int] = frozenset()) -> None:
        self.marks = Marks()
        self.marked: list[int] = []
        self._count = count
        self._others = others

    async def read(self, **_: object) -> AsyncIterator[Found]:
        for offset in range(self._count):
            yield Found(stored=letter(offset), record=None, handled=None, first=None)

    async def listen(self) -> None:
        for offset in self._others:
            self.marks.add(mark_of(letter(offset), DeadLetterAction.REDRIVEN, by="other", now=NOW))

    async def mark(self, stored: StoredLetter, action: DeadLetterAction) -> None:
        self.marks.add(mark_of(stored, action, by="me", now=NOW))
        self.marked.append(stored.position.offset)


class Handler:
    """Counts what it is given. It holds each letter until `release` is set."""

    def __init__(self, *, is_released: bool = True) -> None:
        self.begun: list[int] = []
        self.release = asyncio.Event()
        if is_released:
            self.release.set()

    async def __call__(self, found: Found) -> None:
        self.begun.append(found.stored.position.offset)
        await self.release.wait()


def run_of(mailbox: MailboxInMemory, handler: Handler) -> Handling:
    return Handling(mailbox, DeadLetterAction.REDRIVEN, handler)  # type: ignore[arg-type]


async def test_what_another_operator_marks_meanwhile_is_left_alone() -> None:
    """Though it was not marked when it was read."""
    mailbox, handler = MailboxInMemory(6, others=frozenset({1, 4})), Handler()
    run = run_of(mailbox, handler)
    await run.run(LetterFilter(), {})
    assert sorted(handler.begun) == sorted(mailbox.marked) == [0, 2, 3, 5]
    assert (run.progress.done, run.progress.handled_by_others, run.progress.settled) == (4, 2, 6)


async def test_what_is_under_way_when_it_is_cancelled_is_brought_to_its_mark() -> None:
    """And nothing new is begun; letters in memory are bounded."""
    mailbox, handler = MailboxInMemory(10 * AT_ONCE), Handler(is_released=False)
    run = run_of(mailbox, handler)
    task = asyncio.create_task(run.run(LetterFilter(), {}))
    while len(handler.begun) < AT_ONCE:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    handler.release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert handler.begun == mailbox.marked == list(range(AT_ONCE))
    assert run.progress.done == AT_ONCE


async def test_finishing_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """With Kafka away nothing under way would ever end."""
    monkeypatch.setattr(handling_module, "FINISH_SECONDS", 0.05)
    mailbox, handler = MailboxInMemory(1), Handler(is_released=False)
    task = asyncio.create_task(run_of(mailbox, handler).run(LetterFilter(), {}))
    while not handler.begun:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert mailbox.marked == []


async def test_a_failure_ends_the_run_and_a_refusal_does_not() -> None:
    """What was sent and could not be marked is counted as such: it will be listed again."""

    class Failing(MailboxInMemory):
        async def mark(self, stored: StoredLetter, action: DeadLetterAction) -> None:
            if stored.position.offset == 2:
                raise KafkaTimeoutError("took no record")
            await super().mark(stored, action)

    class Refusing(Handler):
        async def __call__(self, found: Found) -> None:
            if found.stored.position.offset == 0:
                raise RefusedError("too old")
            await super().__call__(found)

    mailbox = Failing(100 * AT_ONCE)
    run = run_of(mailbox, Refusing())
    with pytest.raises(KafkaTimeoutError):
        await run.run(LetterFilter(), {})
    assert [(stored.position.offset, reason) for stored, reason in run.progress.refusals] == [(0, "too old")]
    assert run.progress.begun == run.progress.done + 1
    assert run.progress.done < 3 * AT_ONCE
