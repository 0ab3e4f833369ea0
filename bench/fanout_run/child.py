"""Processes that answer: a line of JSON in, a line of JSON out, one at a time. They end when their input does."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

ANSWER_SECONDS = 120.0
STOP_SECONDS = 10.0
MAX_LINE_BYTES = 64 * 1024 * 1024

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class ChildError(Exception):
    """A process of the benchmark ended, or did not answer in time."""


class Child:
    """`python -m module arguments` in a session of its own, so that Ctrl-C reaches us alone. A context manager."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = ("-m", module, *arguments)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        return self._running.pid

    async def ask(self, what: str, **more: Any) -> dict[str, Any]:
        """Raises `ChildError`."""
        process = self._running
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                process.stdin.write(json.dumps({"ask": what, **more}).encode() + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readline()
        except (TimeoutError, OSError) as error:
            raise ChildError(f"{self._command[1]}: no answer to {what}: {error or 'too late'}") from error
        if not line:
            raise ChildError(f"{self._command[1]} ended instead of answering to {what}")
        found: dict[str, Any] = json.loads(line)
        return found

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=MAX_LINE_BYTES,
            start_new_session=True,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._running
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    @property
    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process


async def answer_questions(answer: Answer) -> None:
    """The child's side: answers until its input ends."""
    reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        print(json.dumps(await answer(json.loads(line))), flush=True)
