"""The `sluice` command as a process: what a terminal, a script and a supervisor see."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import psutil

SLUICE = (sys.executable, "-m", "sluice.cli")


@dataclass(frozen=True)
class Ended:
    """A process that has ended."""

    exit_code: int
    stdout: str
    stderr: str


class Command:
    """`sluice ...` in a process group of its own, as a shell starts it."""

    def __init__(self, *arguments: str, environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [*SLUICE, *arguments],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        """As the terminal does it: to the whole group."""
        os.killpg(self.process.pid, number)

    def end(self, stdin: bytes = b"", *, timeout_seconds: float = 60) -> Ended:
        """Waits for its end. A command that does not end is killed, and fails the test."""
        try:
            stdout, stderr = self.process.communicate(stdin, timeout=timeout_seconds)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        return Ended(self.process.returncode, stdout.decode(), stderr.decode())


async def sluice(*arguments: str, stdin: bytes = b"", environment: Mapping[str, str]) -> Ended:
    """Runs a command to its end."""
    return await asyncio.to_thread(Command(*arguments, environment=environment).end, stdin)


def wait_until(condition: Callable[[], object], *, timeout_seconds: float = 40) -> None:
    """Waits for a condition, and fails when it does not come true."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, "the awaited condition did not come true"
        time.sleep(0.05)


def still_running(processes: list[psutil.Process]) -> list[list[str]]:
    """The command lines of those that have not ended."""
    lines: list[list[str]] = []
    for process in processes:
        # It may end between two looks; a zombie has ended, and tells no command line.
        with suppress(psutil.NoSuchProcess):
            if process.is_running():
                lines.append(process.cmdline())
    return lines
