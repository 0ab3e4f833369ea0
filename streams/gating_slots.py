"""The bound on calls at once of one process, in front of what is shared."""

from dataclasses import dataclass

from schemas.attempt import Problem
from streams.gating import CallOutcome, Flow, Gate, Permit


@dataclass(eq=False, slots=True)
class _SlotPermit:
    permit: Permit
    gate: "SlotGate"

    @property
    def refusal(self) -> Problem | None:
        return self.permit.refusal

    def leave(self, outcome: CallOutcome | None) -> None:
        self.permit.leave(outcome)
        self.gate.in_use -= 1


class SlotGate:
    """At most `slots` permits of another gate at once. Whoever gives permits asks again when one is left."""

    def __init__(self, inner: Gate, *, slots: int) -> None:
        self._inner = inner
        self.slots = slots
        self.in_use = 0

    def try_enter(self, flow: Flow, *, estimated_tokens: int) -> Permit | None:
        if self.in_use >= self.slots:
            return None
        permit = self._inner.try_enter(flow, estimated_tokens=estimated_tokens)
        if permit is None:
            return None
        self.in_use += 1
        return _SlotPermit(permit, self)

    async def changed(self) -> None:
        await self._inner.changed()
