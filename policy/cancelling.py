"""Which requests a cancellation is about."""

from collections import OrderedDict
from datetime import datetime, timedelta
from itertools import product

from policy.summary import Identity
from schemas.command import Command

CLOCKS_DIFFER = timedelta(seconds=5)
"""By how much whoever issues a command may be ahead of the clock that its record was written by."""


def as_written(command: Command, written_at: datetime) -> Command:
    """The command, issued no later than its record allows: from the future it would concern what is yet to be sent."""
    latest = written_at + CLOCKS_DIFFER
    return command if command.issued_at <= latest else command.model_copy(update={"issued_at": latest})


def concerns(command: Command, who: Identity, *, submitted_at: datetime | None) -> bool:
    """Whether all that the command names fits, for a request that was submitted before it was issued."""
    return (
        command.request_id in (None, who.request_id)
        and command.tenant_id in (None, who.tenant_id)
        and command.correlation_id in (None, who.correlation_id)
        and (submitted_at is None or submitted_at <= command.issued_at)
    )


class Cancellations:
    """The newest commands, `most` of them, to be asked about each request: what that costs does not grow with them."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._issued_at: OrderedDict[tuple[str | None, str | None, str | None], datetime] = OrderedDict()
        """By what a command names."""

    def note(self, command: Command) -> None:
        """One that names the same reaches no less far than those before."""
        names = (command.request_id, command.tenant_id, command.correlation_id)
        self._issued_at[names] = max(command.issued_at, self._issued_at.get(names, command.issued_at))
        self._issued_at.move_to_end(names)
        if len(self._issued_at) > self._most:
            self._issued_at.popitem(last=False)

    def concern(self, who: Identity, *, submitted_at: datetime | None) -> bool:
        """Whether one of them `concerns` this request."""
        ways = product((None, who.request_id), (None, who.tenant_id), (None, who.correlation_id))
        found = (self._issued_at.get(names) for names in ways)
        return any(issued_at and (submitted_at is None or submitted_at <= issued_at) for issued_at in found)
