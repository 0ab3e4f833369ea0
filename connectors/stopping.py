"""How a role is asked to stop."""

import asyncio
import signal


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
