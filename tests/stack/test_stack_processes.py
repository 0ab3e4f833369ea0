"""Child processes: found again, stopped in order, and never confused with somebody else's."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from stack_support import wait_until

from sluice.stack import processes
from sluice.stack.errors import Cancelled, StartFailed
from sluice.stack.processes import ProcessRecord

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


def spawn(argv: list[str], tmp_path: Path) -> ProcessRecord:
    log = tmp_path / "child.log"
    record = processes.spawn(argv, cwd=tmp_path, log_path=log)
    wait_until(lambda: "up" in log.read_text())
    return record


def test_a_child_leads_a_session_of_its_own(tmp_path: Path) -> None:
    """The Ctrl-C of a terminal goes to a session's processes, and the child is not in ours."""
    record = spawn(SLEEP, tmp_path)
    try:
        assert os.getsid(record.pid) == record.pid != os.getsid(0)
    finally:
        assert processes.kill(record)


def test_terminate_ends_the_child_and_leaves_no_zombie(tmp_path: Path) -> None:
    """After terminate the pid is free again, and a second call says that there was nothing to do."""
    record = spawn(SLEEP, tmp_path)
    assert processes.is_alive(record)
    assert processes.terminate(record, grace_seconds=10)
    assert not psutil.pid_exists(record.pid)
    assert not processes.terminate(record, grace_seconds=10)


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """After the time of grace comes SIGKILL."""
    record = spawn(STUBBORN, tmp_path)
    assert processes.terminate(record, grace_seconds=0.2)
    assert not psutil.pid_exists(record.pid)


def test_a_recycled_pid_is_neither_alive_nor_killed(tmp_path: Path) -> None:
    """A record whose start time is another one's describes a process that is gone: its pid is left alone."""
    somebody_else = spawn(SLEEP, tmp_path)
    stale = ProcessRecord(pid=somebody_else.pid, started_at=somebody_else.started_at - 3_600)
    try:
        assert not processes.is_alive(stale)
        assert not processes.terminate(stale, grace_seconds=0)
        assert not processes.kill(stale)
        assert processes.is_alive(somebody_else)
    finally:
        processes.kill(somebody_else)


def test_a_zombie_counts_as_gone(tmp_path: Path) -> None:
    """A child that ended while nobody asked is not taken for a running server."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        record = ProcessRecord(pid=child.pid, started_at=psutil.Process(child.pid).create_time())
        assert processes.is_alive(record)
        child.send_signal(signal.SIGKILL)
        wait_until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
        assert not processes.is_alive(record)


def test_the_reason_of_an_end_is_told(tmp_path: Path) -> None:
    """An exit code and a signal are told in words, a running process has no reason."""
    record = spawn([sys.executable, "-c", "print('up', flush=True); raise SystemExit(3)"], tmp_path)
    wait_until(lambda: processes.end_reason(record) is not None)
    assert processes.end_reason(record) == "it ended with exit code 3"
    running = spawn(SLEEP, tmp_path)
    assert processes.end_reason(running) is None
    os.kill(running.pid, signal.SIGKILL)
    wait_until(lambda: processes.end_reason(running) is not None)
    assert processes.end_reason(running) == "it was ended by SIGKILL"


def run(argv: list[str], tmp_path: Path, *, cancelled: threading.Event, timeout_seconds: float = 20) -> None:
    processes.run_to_end(
        argv,
        cwd=tmp_path,
        log_path=tmp_path / "run.log",
        service="Kafka",
        cancelled=cancelled,
        timeout_seconds=timeout_seconds,
    )


def test_a_command_that_fails_is_quoted(tmp_path: Path) -> None:
    """The error names the log file and quotes its last lines."""
    with pytest.raises(StartFailed) as caught:
        run([sys.executable, "-c", "raise SystemExit('no space left')"], tmp_path, cancelled=threading.Event())
    assert str(tmp_path / "run.log") in str(caught.value)
    assert "| no space left" in str(caught.value)
    assert "ended with exit code 1" in caught.value.reason


def children() -> set[int]:
    """Of this process: the run's own Kafka and Redis may be among them."""
    return {child.pid for child in psutil.Process().children()}


def test_a_command_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """After its timeout a command is killed and reported."""
    before = children()
    with pytest.raises(StartFailed, match="took longer than"):
        run(SLEEP, tmp_path, cancelled=threading.Event(), timeout_seconds=0.2)
    assert children() == before


def test_a_cancelled_command_is_ended(tmp_path: Path) -> None:
    """When the start is given up its commands do not run on."""
    before = children()
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(Cancelled):
        run(SLEEP, tmp_path, cancelled=cancelled)
    assert children() == before


def test_the_tail_of_a_long_log_is_short(tmp_path: Path) -> None:
    """Only the last lines are quoted, whatever the size; an absent log quotes nothing."""
    log = tmp_path / "long.log"
    log.write_text("".join(f"line {number}\n" for number in range(100_000)))
    assert processes.tail(log, lines=2) == "line 99998\nline 99999"
    assert processes.tail(tmp_path / "absent.log") == ""


def test_a_log_that_has_grown_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over many starts one older log is kept, not all of them."""
    monkeypatch.setattr(processes, "_ROTATE_BYTES", 10)
    log = tmp_path / "child.log"
    log.write_text("an earlier run")
    processes.kill(spawn(SLEEP, tmp_path))
    assert (tmp_path / "child.old.log").read_text() == "an earlier run"
    assert log.read_text() == "up\n"
