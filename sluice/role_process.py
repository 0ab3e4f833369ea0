"""Roles as child processes: for the demo, the tests and the benchmarks. A deployment has its own supervisor."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from sluice.stack import ports
from sluice.stack.processes import tail

READY_SECONDS = 60.0
"""A first start compiles every module, and the roles of a demo start at once."""
STOP_SECONDS = 30.0


class RoleFailedError(Exception):
    """A role ended, or was not ready in time. The message quotes its log and names the file."""


class RoleProcess:
    """`sluice run ...` in a session of its own: a terminal's Ctrl-C reaches us, and we stop it in order.

    It ends as well when we do, however we die: it holds the other end of a pipe that closes then.
    """

    def __init__(
        self, *arguments: str, environment: Mapping[str, str], log_path: Path, module: str = "sluice.cli"
    ) -> None:
        """`module` is run in place of the command line; it takes the same arguments."""
        self.name = "-".join(arguments)
        self.log_path = log_path
        (self.ops_port,) = ports.choose(1)
        with log_path.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own command line, from no one else
                [sys.executable, "-m", module, "run", *arguments, "--until-stdin-closes"],
                env={**os.environ, **environment, "SLUICE_OPS__PORT": str(self.ops_port), "SLUICE_LOG__FORMAT": "json"},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    async def ready(self, *, timeout_seconds: float = READY_SECONDS) -> None:
        """Returns when /readyz says so. Raises `RoleFailedError`."""
        url = f"http://127.0.0.1:{self.ops_port}/readyz"
        try:
            async with asyncio.timeout(timeout_seconds), aiohttp.ClientSession() as session:
                while True:
                    self.check()
                    try:
                        async with session.get(url) as response:
                            if response.status == 200:
                                return
                    except aiohttp.ClientConnectionError:
                        pass
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise RoleFailedError(self._account(f"was not ready within {timeout_seconds:g} s")) from None

    def check(self) -> None:
        """Raises `RoleFailedError` where the role has ended."""
        if self.process.poll() is not None:
            raise RoleFailedError(self._account(f"ended with exit code {self.process.returncode}"))

    def signal(self, number: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """As a crash would end it."""
        self.signal(signal.SIGKILL)
        self.process.wait()
        self._close_stdin()

    async def stop(self, *, timeout_seconds: float = STOP_SECONDS) -> int:
        """SIGTERM, and the exit code. After the timeout it is killed."""
        self.signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(self.process.wait, timeout_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)
        self._close_stdin()
        return self.process.returncode

    def _close_stdin(self) -> None:
        # Only now: to the role its end is a second signal, which ends it at once.
        if self.process.stdin is not None:
            self.process.stdin.close()

    def _account(self, what: str) -> str:
        return f"{self.name} {what}; the end of {self.log_path}:\n{tail(self.log_path)}"
