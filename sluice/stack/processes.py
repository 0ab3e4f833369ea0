"""Child processes that outlive us when they must, and are never confused with somebody else's.

A process is known by its pid and its start time: a pid alone may have been given to another process since.
Each child leads a session of its own, so a terminal's Ctrl-C reaches only us, and we stop the children in order.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from sluice.stack.errors import Cancelled, StartFailed

# psutil derives a start time from the boot time, which moves by fractions when the clock is adjusted.
_START_TIME_TOLERANCE_SECONDS = 1.0
_POLL_SECONDS = 0.05
_KILL_SECONDS = 10.0
_TAIL_BYTES = 8_192
_ROTATE_BYTES = 10 * 1024**2


class ProcessRecord(BaseModel):
    """One process, as the state file names it."""

    model_config = ConfigDict(frozen=True)

    pid: int
    started_at: float


# Children of this process: only their parent learns how they ended, and must ask or they stay as zombies.
_children: dict[ProcessRecord, subprocess.Popen[bytes]] = {}


def spawn(argv: Sequence[str], *, cwd: Path, log_path: Path) -> ProcessRecord:
    """Start `argv` in a session of its own, its output appended to `log_path`."""
    log_path.parent.mkdir(parents=True, exist_ok=True)
    _rotate(log_path)
    with log_path.open("ab") as log:
        child = subprocess.Popen(  # noqa: S603 - our own command lines, no shell
            list(argv),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    record = ProcessRecord(pid=child.pid, started_at=psutil.Process(child.pid).create_time())
    _children[record] = child
    return record


def is_alive(record: ProcessRecord) -> bool:
    """Whether that very process runs, and not another one that was given its pid."""
    child = _children.get(record)
    return _is_found(record) if child is None else child.poll() is None


def end_reason(record: ProcessRecord) -> str | None:
    """How that process ended, or None while it runs."""
    child = _children.get(record)
    if child is not None and child.poll() is not None:
        return f"it {_exit_text(child.returncode)}"
    return None if is_alive(record) else "its process is gone"


def terminate(record: ProcessRecord, *, grace_seconds: float) -> bool:
    """SIGTERM, and SIGKILL after `grace_seconds`. False when that process was already gone."""
    return _end(record, signal.SIGTERM, grace_seconds=grace_seconds)


def kill(record: ProcessRecord) -> bool:
    """SIGKILL, and wait until it is gone. False when that process was already gone."""
    return _end(record, signal.SIGKILL, grace_seconds=_KILL_SECONDS)


def run_to_end(
    argv: Sequence[str],
    *,
    cwd: Path,
    log_path: Path,
    service: str,
    cancelled: threading.Event,
    timeout_seconds: float,
) -> None:
    """Run a command that ends by itself, and raise `StartFailed` when it fails or takes too long."""
    program = Path(argv[0]).name
    record = spawn(argv, cwd=cwd, log_path=log_path)
    child = _children[record]
    deadline = time.monotonic() + timeout_seconds
    try:
        while child.poll() is None:
            if cancelled.wait(_POLL_SECONDS):
                raise Cancelled(service)
            if time.monotonic() > deadline:
                raise StartFailed(
                    service=service,
                    reason=f"{program} took longer than {timeout_seconds:.0f} s",
                    log_path=log_path,
                    log_tail=tail(log_path),
                )
    finally:
        kill(record)
    if child.returncode != 0:
        raise StartFailed(
            service=service,
            reason=f"{program} {_exit_text(child.returncode)}",
            log_path=log_path,
            log_tail=tail(log_path),
        )


def tail(log_path: Path, *, lines: int = 15) -> str:
    """The last lines of a log file, however long it is."""
    try:
        with log_path.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - _TAIL_BYTES))
            text = log.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _exit_text(returncode: int) -> str:
    if returncode < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-returncode).name}"
    return f"ended with exit code {returncode}"


def _rotate(log_path: Path) -> None:
    """Keep one older log, so that many starts do not fill the disk."""
    with contextlib.suppress(FileNotFoundError):
        if log_path.stat().st_size > _ROTATE_BYTES:
            log_path.replace(log_path.with_suffix(".old.log"))


def _end(record: ProcessRecord, number: signal.Signals, *, grace_seconds: float) -> bool:
    if not is_alive(record):
        _children.pop(record, None)
        return False
    _signal_session(record.pid, number)
    if not _is_gone_within(record, grace_seconds):
        _signal_session(record.pid, signal.SIGKILL)
        _is_gone_within(record, _KILL_SECONDS)
    _children.pop(record, None)
    return True


def _is_gone_within(record: ProcessRecord, timeout_seconds: float) -> bool:
    # Not psutil's wait: in a container whose first process reaps nobody, it waits for a zombie for ever.
    deadline = time.monotonic() + timeout_seconds
    while is_alive(record):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS / 5)
    return True


def _is_found(record: ProcessRecord) -> bool:
    try:
        process = psutil.Process(record.pid)
        if abs(process.create_time() - record.started_at) > _START_TIME_TOLERANCE_SECONDS:
            return False
        # A zombie holds nothing any more, unless it is only the first thread that has ended.
        return process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
    except psutil.NoSuchProcess:
        return False


def _signal_session(pid: int, number: signal.Signals) -> None:
    """Every child of ours leads a process group of its own, whose id is its pid."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)
