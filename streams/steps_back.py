"""Notices that the shared state came back with old data: a number in it that only grows has become smaller.

After a failover, or a restart from a snapshot, Redis knows its requests as they were some time ago. What has ended
since then would end a second time, with its deadline. Such a store looks as if it had never been away, so somebody has
to remember.
"""

from connectors.state.shared_values import SharedValues

KEPT_SECONDS = 3_600.0


class StepsBack:
    """One process's number in the shared state.

    What is lost between two looks at it does not show; but that the server runs anew does (`StateStore.is_same_run`).
    """

    def __init__(self, values: SharedValues, *, worker: str) -> None:
        self._values = values
        self._name = f"sweeps:{worker}"
        self._last = 0

    async def has_gone_back(self) -> bool:
        """Whether the store has lost what it held when this was asked before. Raises `StateUnavailableError`."""

        def following(stored: bytes | None, _now_ms: int) -> tuple[bytes | None, tuple[int, int]]:
            found = int(stored or 0)
            number = max(found, self._last) + 1
            return str(number).encode(), (found, number)

        last = self._last
        found, self._last = await self._values.update(self._name, following, ttl_seconds=KEPT_SECONDS)
        return found < last
