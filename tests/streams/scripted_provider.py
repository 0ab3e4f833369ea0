"""A provider that says what it is told to, and remembers who called."""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field

from connectors.providers.base import Answered, Call, CallEvent, Outcome, Text

DuringCall = Callable[[Call], Awaitable[None]]
Step = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]


@dataclass
class Script:
    """What calls bring, in turn, and then always `otherwise`. `pieces` come before a failure, as of a broken stream.

    `during` runs within each call, after the provider has taken it.
    """

    otherwise: Outcome
    in_turn: list[Outcome] = field(default_factory=list)
    pieces: tuple[str, ...] = ()
    during: DuringCall | None = None
    calls: Counter[str] = field(default_factory=Counter)
    """By request."""
    made: list[tuple[str, int]] = field(default_factory=list)
    """Provider and number of each call."""
    closed: int = 0
    """Calls whose connection was closed."""

    def next_outcome(self) -> Outcome:
        return self.in_turn.pop(0) if self.in_turn else self.otherwise


class ScriptedProvider:
    """Implements `Provider`. `step` stands for the way to it: a process that is dead calls nobody."""

    def __init__(self, name: str, script: Script, step: Step) -> None:
        self.name = name
        self._script = script
        self._step = step

    def open(self, call: Call) -> AbstractAsyncContextManager[AsyncIterator[CallEvent]]:
        return aclosing(self._events(call))

    async def _events(self, call: Call) -> AsyncGenerator[CallEvent, None]:
        script = self._script

        async def begin() -> None:
            script.calls[call.request_id] += 1
            script.made.append((self.name, call.attempt))

        try:
            await self._step(begin)
            outcome = script.next_outcome()
            if isinstance(outcome, Answered):
                yield Text(outcome.text)
            else:
                for piece in script.pieces:
                    yield Text(piece)
            if script.during is not None:
                await script.during(call)
            yield outcome
        finally:
            script.closed += 1

    async def close(self) -> None: ...
