"""Which requests a cancellation is about."""

from datetime import datetime, timedelta

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
