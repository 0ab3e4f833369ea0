"""When events were made, and when listeners had them. All times are of the machine's one monotonic clock."""

import asyncio
import re
import time

POLL_SECONDS = 0.02
MADE_AT = re.compile(rb"made at ([0-9.]+) s")


def made_now() -> str:
    """The text that an event carries: the moment, in seconds."""
    return f"made at {time.monotonic():.7f} s"


class Ears:
    """What all listeners of a process have heard since `listen`."""

    def __init__(self) -> None:
        self._count = 0
        self._slowest: dict[bytes, float] = {}

    def hear(self, payload: bytes, now: float) -> None:
        """Takes a payload that one listener has. What carries no moment is no event."""
        found = MADE_AT.search(payload)
        if found is None:
            return
        self._count += 1
        made_at = found[1]
        seconds = now - float(made_at)
        if seconds > self._slowest.get(made_at, 0.0):
            self._slowest[made_at] = seconds

    def listen(self) -> None:
        """Begins anew."""
        self._count = 0
        self._slowest = {}

    async def heard(self, deliveries: int) -> list[int]:
        """Waits for so many deliveries. Of each event the microseconds until the last of its listeners had it."""
        while self._count < deliveries:  # noqa: ASYNC110 - to be woken by each frame would be part of what is measured
            await asyncio.sleep(POLL_SECONDS)
        return [round(seconds * 1e6) for seconds in self._slowest.values()]
