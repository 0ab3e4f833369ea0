"""Which requests a cancellation is about."""

from datetime import datetime

from policy.summary import Identity
from schemas.command import Command


def concerns(command: Command, who: Identity, *, submitted_at: datetime | None) -> bool:
    """Whether all that the command names fits, for a request that was submitted before it was issued."""
    return (
        command.request_id in (None, who.request_id)
        and command.tenant_id in (None, who.tenant_id)
        and command.correlation_id in (None, who.correlation_id)
        and (submitted_at is None or submitted_at <= command.issued_at)
    )
