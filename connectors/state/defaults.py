"""What stands for arguments that a caller leaves out."""

from connectors.state.base import TaskRef
from schemas.dead_letter_headers import Redrive

ANY_TASK = TaskRef(version=0, attempt=1, size_bytes=0, deadline_ms=0)
"""Whatever task a request is on."""

FIRST_LIFE = Redrive(count=0, state_version=0, attempt=0)

CANCEL_GRACE_MS = 10_000
"""By then whoever cancelled a request, or holds it, has ended it; else a sweep does. Also in `lua/cancel.lua`."""
