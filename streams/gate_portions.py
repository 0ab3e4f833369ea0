"""Requests and tokens that a process has leased, each portion for a short while."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Amount:
    """So many calls, and so many tokens."""

    requests: int = 0
    tokens: int = 0

    def add(self, requests: int, tokens: int) -> None:
        self.requests += requests
        self.tokens += tokens

    @property
    def is_nothing(self) -> bool:
        return self.requests == 0 and self.tokens == 0


class Portions:
    """What is left of the portions whose time has not ended; the oldest is spent first."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._portions: deque[tuple[Amount, float]] = deque()

    def add(self, requests: int, tokens: int, *, ends_at: float) -> None:
        if requests or tokens:
            self._portions.append((Amount(requests, tokens), ends_at))

    def left(self) -> Amount:
        now = self._monotonic()
        whole = Amount()
        for portion, ends_at in self._portions:
            if ends_at > now:
                whole.add(portion.requests, portion.tokens)
        return whole

    def take(self, requests: int, tokens: int) -> None:
        """No more than is left."""
        now = self._monotonic()
        for portion, ends_at in self._portions:
            if ends_at > now:
                taken = Amount(min(requests, portion.requests), min(tokens, portion.tokens))
                portion.add(-taken.requests, -taken.tokens)
                requests -= taken.requests
                tokens -= taken.tokens

    def ended(self) -> Amount:
        """Takes out what was not spent in time, and tells how much it was."""
        now = self._monotonic()
        unspent = Amount()
        while self._portions and (self._portions[0][1] <= now or self._portions[0][0].is_nothing):
            portion, _ = self._portions.popleft()
            unspent.add(portion.requests, portion.tokens)
        return unspent

    def first_end(self) -> float | None:
        """When the oldest portion ends."""
        return self._portions[0][1] if self._portions else None
