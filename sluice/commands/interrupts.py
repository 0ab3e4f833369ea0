"""Ctrl-C, SIGTERM and a closed terminal: one orderly way out of a command."""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Self, TypeVar

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """While it is entered, the first of these signals raises KeyboardInterrupt, and ends what `run` runs.

    Later ones are ignored: while we clean up, an impatient second Ctrl-C must not leave processes behind.
    `on_interrupt` may tell that it was heard.
    """

    def __init__(self, on_interrupt: Callable[[], object] = lambda: None) -> None:
        self._on_interrupt = on_interrupt
        self._before: dict[signal.Signals, Any] = {}
        self._interrupted = False
        self._is_over = False
        self._cancel: Callable[[], object] | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                    continue  # as `nohup` wants it
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            # Interrupted, the process is about to end: it says so, undisturbed, and with its own exit code.
            signal.signal(number, signal.SIG_IGN if self._interrupted else handler)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """`asyncio.run`, whose work is cancelled by the first signal and may take its time to clean up.

        What comes after it is cleaning up as well: signals are ignored from then on.
        """
        try:
            return asyncio.run(self._cancellable(work))
        except asyncio.CancelledError:
            if not self._interrupted:
                raise
            raise KeyboardInterrupt from None
        finally:
            self._is_over = True

    async def _cancellable(self, work: Coroutine[Any, Any, T]) -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if task is None:
            raise RuntimeError("runs as a task")

        def interrupt() -> None:
            self._on_interrupt()
            task.cancel()

        # Threadsafe, for it wakes the loop: a signal handler runs between any two instructions.
        self._cancel = lambda: loop.call_soon_threadsafe(interrupt)
        try:
            return await work
        finally:
            self._cancel = None

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._interrupted or self._is_over:
            return
        self._interrupted = True
        if self._cancel is None:
            self._on_interrupt()
            raise KeyboardInterrupt
        self._cancel()
