"""When to look for cyclic garbage among what is old. The decision is pure; `collect_now_and_then` acts on it.

Left to itself Python looks whenever old objects have grown by a quarter. What the bridge remembers is old, never
cyclic, and grows all the time after a start; to look through it takes half a microsecond an object, a fifth of a second
in the end, during which nobody is told anything. Garbage comes from connections: each leaves some 60 objects (15 kB)
behind, in cycles of its protocol and transport. So connections are what is counted.
"""

import asyncio
import gc
import time
from collections.abc import Callable

CHECK_INTERVAL_SECONDS = 2.0
LEAST_OPENED = 1_000
SHARE_OF_OPEN = 0.25
MOST_SECONDS = 600.0
"""For whatever else leaves cycles behind."""
_NEVER = 1_000_000
"""In collections of the middle generation: days of allocating without freeing."""


class Garbage:
    """What may have come together since it was last collected."""

    def __init__(self, *, now: float) -> None:
        self._opened = 0
        self._at = now

    def is_due(self, *, opened: int, still_open: int, now: float) -> bool:
        """Whether to collect now. `opened`: connections that there ever were. True begins anew."""
        enough = max(LEAST_OPENED, still_open * SHARE_OF_OPEN)
        if opened - self._opened < enough and now - self._at < MOST_SECONDS:
            return False
        self._opened, self._at = opened, now
        return True


async def collect_now_and_then(connections: Callable[[], tuple[int, int]]) -> None:
    """Until it is cancelled, in place of Python's own collections of old objects; those of young ones go on.

    `connections`: how many there ever were, and how many are open. This is of the whole process.
    """
    before = gc.get_threshold()
    gc.set_threshold(*before[:2], _NEVER)
    garbage = Garbage(now=time.monotonic())
    try:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_SECONDS)
            opened, still_open = connections()
            if garbage.is_due(opened=opened, still_open=still_open, now=time.monotonic()):
                gc.collect()
    finally:
        gc.set_threshold(*before)
