"""The newest letters of all, while only so many are in memory."""

import heapq
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from sluice.dlq.letters import LetterFilter, Position
from sluice.dlq.mailbox import Found, Mailbox

T = TypeVar("T")


async def newest(
    mailbox: Mailbox, wanted: LetterFilter, limit: int, *, kept: Callable[[Found], T], everything: bool
) -> tuple[list[T], Counter[str]]:
    """Of each of the newest `limit` that match what `kept` makes of it, and how many match in all, by category.

    Repeats are left out, and without `everything` so are those that were redriven or purged.
    """
    heap: list[tuple[datetime, Position, T]] = []
    categories: Counter[str] = Counter()
    async for found in mailbox.read(since=wanted.since):
        stored = found.stored
        is_hidden = found.first is not None or (found.handled is not None and not everything)
        if is_hidden or not wanted.matches(stored):
            continue
        categories[stored.letter.category] += 1
        # A position stands once, so the third is never compared.
        entry = (stored.died_at, stored.position, kept(found))
        if len(heap) < limit:
            heapq.heappush(heap, entry)
        elif limit:
            heapq.heappushpop(heap, entry)
    return [item for _, _, item in sorted(heap, key=lambda entry: entry[:2], reverse=True)], categories
