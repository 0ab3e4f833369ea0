"""A journal of provider calls that survives a kill -9, so that a test can count what was really called."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from connectors.providers.base import Call

JournalEvent = Literal["start", "answered", "failed", "cancelled"]


class CallJournal:
    """Appends one JSON line per event: request_id, attempt, pid, time, event.

    Each line is one write to a file opened for appending, so lines of several processes never mix, and it is with
    the kernel before the call goes on: it outlives the process, though not the machine.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, call: Call, event: JournalEvent) -> None:
        line = {
            "request_id": call.request_id,
            "attempt": call.attempt,
            "pid": os.getpid(),
            "time": datetime.now(UTC).isoformat(),
            "event": event,
        }
        os.write(self._descriptor, json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        os.close(self._descriptor)


def read_journal(path: Path) -> list[dict[str, object]]:
    """All lines of a journal, oldest first."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
