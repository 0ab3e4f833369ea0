"""What can go wrong with the local stack. Each error carries its facts as fields.

StackError
├── NoSource             nothing on this machine can provide a service
├── ExternalUnreachable  an address the user gave cannot be used
├── StartFailed          a server was started and did not become ready
├── DockerFailed         the Docker engine refused or broke off something
├── StackBusy            another process is starting or stopping the same stack
├── StateUnreadable      the state file cannot be understood
├── NotOurs              a service that Sluice did not start was to be killed or restarted
└── Cancelled            the start was given up because another part of it failed or was interrupted
"""

from collections.abc import Sequence
from pathlib import Path


class StackError(Exception):
    """Anything that keeps the local stack from starting, stopping or being read."""


class NoSource(StackError):  # noqa: N818 - reads as what is missing
    """Nothing on this machine can provide one service or more; `lacking` says why and what to do."""

    def __init__(self, lacking: Sequence[str]) -> None:
        super().__init__("\n".join(lacking))
        self.lacking = tuple(lacking)


class ExternalUnreachable(StackError):  # noqa: N818
    """The address in an environment variable cannot be used: nobody answers, or we are refused."""

    def __init__(self, *, variable: str, address: str, reason: str) -> None:
        super().__init__(
            f"{variable}={address} cannot be used: {reason}. Without {variable}, Sluice starts a server of its own."
        )
        self.variable = variable
        self.address = address
        self.reason = reason


class StartFailed(StackError):  # noqa: N818
    """A server did not become ready; the message quotes the end of its log."""

    def __init__(self, *, service: str, reason: str, log_path: Path, log_tail: str) -> None:
        quoted = "\n".join(f"  | {line}" for line in log_tail.splitlines()) or "  | (empty)"
        super().__init__(f"{service} did not start: {reason}. Log: {log_path}\n{quoted}")
        self.service = service
        self.reason = reason
        self.log_path = log_path
        self.log_tail = log_tail


class DockerFailed(StackError):  # noqa: N818
    """The Docker engine refused or broke off something; the message says what."""


class StackBusy(StackError):  # noqa: N818
    """The lock of this state directory is held by another process for too long."""

    def __init__(self, *, lock_path: Path, waited_seconds: float) -> None:
        super().__init__(
            f"another process is starting or stopping this stack (waited {waited_seconds:.0f} s for {lock_path})"
        )
        self.lock_path = lock_path
        self.waited_seconds = waited_seconds


class StateUnreadable(StackError):  # noqa: N818
    """The state file exists and cannot be understood, so what runs is unknown."""

    def __init__(self, *, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} cannot be read: {reason}. Stop what it names by hand (see the pids in it), then remove the file."
        )
        self.path = path
        self.reason = reason


class NotOurs(StackError):  # noqa: N818
    """A service that Sluice did not start is left alone."""

    def __init__(self, *, service: str, address: str) -> None:
        super().__init__(f"{service} at {address} was not started by Sluice, which therefore leaves it alone")
        self.service = service
        self.address = address


class Cancelled(StackError):  # noqa: N818
    """The start of one service was given up; the error that caused it is raised in its place."""
