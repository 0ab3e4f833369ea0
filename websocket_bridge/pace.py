"""How fast a client may command. Pure: the clock is an argument."""

BURST_SECONDS = 2.0
"""A client that was quiet may send as much at once as it could have sent in this time."""


class Pace:
    """The generic cell rate algorithm: one number a client."""

    __slots__ = ("_due",)

    def __init__(self) -> None:
        self._due = 0.0

    def delay_seconds(self, *, rate: float, now: float) -> float:
        """Takes one command into account. Returns how long it has to wait."""
        self._due = max(now, self._due) + 1 / rate
        return max(0.0, self._due - now - BURST_SECONDS)
