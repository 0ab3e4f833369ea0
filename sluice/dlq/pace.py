"""A steady pace: so many a second, evenly."""

import asyncio
import time


class Pace:
    """`keep` returns when the next may begin. Without a rate that is at once. What was late is not caught up."""

    def __init__(self, per_second: float | None) -> None:
        self._interval_seconds = 1 / per_second if per_second else 0.0
        self._next_at = 0.0

    async def keep(self) -> None:
        now = time.monotonic()
        begin_at = max(now, self._next_at)
        self._next_at = begin_at + self._interval_seconds
        if begin_at > now:
            await asyncio.sleep(begin_at - now)
