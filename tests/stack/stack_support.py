"""What the stack's tests share: waiting for a condition, and a small server that stands for Kafka or Redis."""

import sys
import time
from collections.abc import Callable

from sluice.stack import processes
from sluice.stack.local_service import Server
from sluice.stack.ports import LOOPBACK
from sluice.stack.service import Launch
from sluice.stack.state import ServiceName, ServiceRecord, Source, StateDir

# Listens on the given ports, says so, and accepts whatever comes.
LISTENER = """
import socket, sys
listeners = []
for port in sys.argv[1:]:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(port)))
    listener.listen()
    listeners.append(listener)
print("listening on", *sys.argv[1:], flush=True)
while True:
    listeners[0].accept()
"""
NEVER_LISTENS = "import time; time.sleep(600)"


def wait_until(condition: Callable[[], object], *, timeout_seconds: float = 20.0) -> None:
    """Wait for a condition, and fail when it does not come true."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, "the awaited condition did not come true"
        time.sleep(0.02)


def listener_server(
    state: StateDir, script: str = LISTENER, *, port_count: int = 1, ready_timeout_seconds: float = 10.0
) -> Server:
    """A server that runs `LISTENER`, or another script."""
    log_path = state.log_path(ServiceName.KAFKA)

    def launch_listener(ports: tuple[int, ...], _launch: Launch) -> ServiceRecord:
        argv = [sys.executable, "-c", script, *(str(port) for port in ports)]
        return ServiceRecord(
            source=Source.JAVA,
            description="a listener",
            ports=ports,
            log_path=log_path,
            process=processes.spawn(argv, cwd=state.path.parent, log_path=log_path),
        )

    return Server(
        name=ServiceName.KAFKA,
        source=Source.JAVA,
        port_count=port_count,
        launch=launch_listener,
        probe=lambda address: address.startswith(LOOPBACK),
        ready_timeout_seconds=ready_timeout_seconds,
    )
