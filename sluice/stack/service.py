"""What every service of the stack can do, whatever runs it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from sluice.stack.state import ServiceName, Source

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One start of the stack: whom to tell about it, and whether it was given up."""

    on_progress: Progress
    cancelled: threading.Event = field(default_factory=threading.Event)


class Condition(StrEnum):
    """How a service is doing."""

    RUNNING = "running"
    STOPPED = "stopped"
    """On purpose: by us or by `sluice down`."""
    CRASHED = "crashed"


class Service(Protocol):
    """Kafka or Redis: at the user's address (`external.py`), or run by us (`local_service.py`)."""

    name: ServiceName
    source: Source
    started_here: bool
    """Whether this object started it, and so stops it with the stack."""

    @property
    def address(self) -> str:
        """What clients connect to: `host:port` for Kafka, a URL for Redis."""

    @property
    def shown_address(self) -> str:
        """The address without its password."""

    @property
    def description(self) -> str:
        """Where it comes from, for people."""

    def ensure(self, launch: Launch) -> None:
        """Attach to the one that runs, or start it; returns when it is ready."""

    def condition(self) -> Condition:
        """Whether it runs now; one of the user's own that does not answer counts as crashed."""

    def log_path(self) -> Path | None:
        """Where its output goes; None for one of the user's own."""

    def start(self) -> None:
        """Start it again after `stop` or `kill`, on the same ports and data; returns when it is ready."""

    def stop(self) -> bool:
        """Shut it down in order. False when it was not running."""

    def kill(self) -> None:
        """SIGKILL, as a crash would."""

    def restart(self) -> None:
        """`stop` and `start`."""
