"""Since when the shared state has answered without interruption. Ends from outside of a lane wait for that.

While it is away lanes end requests by themselves, and in the seconds after its return nobody else knows of that: a step
that a lane had sent before still runs into its time-out, and then the result is published. What is ended from outside
meanwhile may have ended already. So may it after the start of this process, which cannot know what was before.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from connectors.state.base import StateUnavailableError
from streams.own_claims import AWAY_SECONDS

log = structlog.get_logger(__name__)

PUBLISHED_SECONDS = 2.0
"""From the time-out of a lane's last step, by when its result is in Kafka. Those are read before anything is ended."""
ASK_SECONDS = 0.5


class Steadiness:
    """Asks the shared state all the time, of which a step takes no more than `timeout_seconds`.

    `clock` gives seconds, and is never set back.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[object]],
        *,
        timeout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._clock = clock
        self.steady_seconds = timeout_seconds + PUBLISHED_SECONDS
        self._since: float | None = None
        self._answered_at = 0.0

    def since(self) -> float | None:
        """Since when it answers, by `clock`. None: not for long enough, or nobody has asked lately."""
        if self._since is None or self._clock() - self._answered_at >= AWAY_SECONDS:
            return None
        return self._since if self._clock() - self._since >= self.steady_seconds else None

    async def run(self) -> None:
        """Asks until it is cancelled."""
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("steadiness_not_known")
                self._since = None
            await asyncio.sleep(ASK_SECONDS)

    async def look(self) -> None:
        """Asks once. What lies between two answers was an absence if lanes may have taken it for one."""
        try:
            await self._ask()
        except StateUnavailableError:
            self._since = None
            return
        now = self._clock()
        if self._since is None or now - self._answered_at >= AWAY_SECONDS:
            self._since = now
        self._answered_at = now
