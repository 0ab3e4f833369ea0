"""How a role is asked to stop."""

import asyncio
import os
import signal
import threading

import structlog

log = structlog.get_logger(__name__)

EXIT_STUCK = 1


def stop_event() -> asyncio.Event:
    """Set by SIGTERM and SIGINT. A second signal ends the process at once, as if it had never been caught."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        stop.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return stop


def end_process_after(seconds: float) -> None:
    """Ends this process for good if it is still there then. For a stop that hangs on somebody who is away.

    What is not committed by then is delivered again, as after a crash; the orderly part of a stop is long over.
    """

    def end() -> None:
        log.error("stop_hangs", seconds=seconds)
        os._exit(EXIT_STUCK)

    watchdog = threading.Timer(seconds, end)
    watchdog.daemon = True
    watchdog.start()
