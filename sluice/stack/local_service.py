"""A service that we run: started as its `Server` says, found again through the state file by whoever comes later.

What runs is always read from the state file, never remembered: another process may have stopped or restarted it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sluice.stack import ports, running
from sluice.stack.errors import Cancelled, DockerFailed, StartFailed
from sluice.stack.probes import NotReady
from sluice.stack.service import Condition, Launch
from sluice.stack.state import ServiceName, ServiceRecord, Source, StateDir

_POLL_SECONDS = 0.05
_PORT_ATTEMPTS = 3
# A running server that does not answer for so long is taken for broken. A killed broker's next start takes 5 s.
_ATTACH_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Server:
    """How one kind of server is run. `launch` starts it on the given ports and returns at once."""

    name: ServiceName
    source: Source
    port_count: int
    launch: Callable[[tuple[int, ...], Launch], ServiceRecord]
    probe: Callable[[str], object]
    ready_timeout_seconds: float


class LocalService:
    """Kafka or Redis, run by us."""

    def __init__(self, server: Server, state: StateDir) -> None:
        self.name = server.name
        self.source = server.source
        self.started_here = False
        self._server = server
        self._state = state

    @property
    def address(self) -> str:
        return self._record().address(self.name)

    @property
    def shown_address(self) -> str:
        return self.address

    @property
    def description(self) -> str:
        return self._record().description

    def ensure(self, launch: Launch) -> None:
        # In a thread of `stack.start`, which holds the lock.
        record = self._state.service(self.name)
        if record is not None and running.is_alive(record):
            launch.on_progress(f"{self.name.label}: already running at {self.address}")
            try:
                self._await_ready(record, launch, timeout_seconds=_ATTACH_TIMEOUT_SECONDS)
            except StartFailed as error:
                launch.on_progress(f"{self.name.label}: {error.reason}, starting it anew")
                stop_recorded(self.name, self._state)
            else:
                return
        # Before it is: whatever goes wrong from here on, it is ours to stop.
        self.started_here = True
        self._start(launch)

    def condition(self) -> Condition:
        record = self._state.service(self.name)
        if record is None or not record.should_run:
            return Condition.STOPPED
        return Condition.RUNNING if running.is_alive(record) else Condition.CRASHED

    def log_path(self) -> Path | None:
        return self._record().log_path

    def start(self) -> None:
        with self._state.locked():
            if self.condition() is not Condition.RUNNING:
                self._start(Launch(on_progress=lambda _: None))

    def stop(self) -> bool:
        with self._state.locked():
            return stop_recorded(self.name, self._state)

    def kill(self) -> None:
        with self._state.locked():
            running.kill(self._record())

    def restart(self) -> None:
        with self._state.locked():
            self.stop()
            self.start()

    def _record(self) -> ServiceRecord:
        record = self._state.service(self.name)
        if record is None:
            raise LookupError(f"{self.name.label} was never started in {self._state.path}")
        return record

    def _start(self, launch: Launch) -> None:
        began = time.monotonic()
        before = self._state.service(self.name)
        if before is not None and before.source is not self.source:
            before = None
        if before is not None:
            # One that crashed still has its record, and a container its remains.
            stop_recorded(self.name, self._state)
        for attempts_left in reversed(range(_PORT_ATTEMPTS)):
            chosen = ports.choose(self._server.port_count, prefer=before.ports if before else ())
            try:
                self._start_on(chosen, launch)
            except (StartFailed, DockerFailed):
                # Between our choice and the server's bind another process may have taken a port.
                if attempts_left == 0 or all(ports.is_free(port) for port in chosen):
                    raise
                launch.on_progress(f"{self.name.label}: a port was taken meanwhile, choosing others")
            else:
                took = time.monotonic() - began
                launch.on_progress(f"{self.name.label}: ready at {self.address} after {took:.1f} s")
                return

    def _start_on(self, chosen: tuple[int, ...], launch: Launch) -> None:
        record = self._server.launch(chosen, launch)
        # Before it is ready: whoever kills us now leaves a server that `sluice down` can find.
        self._state.put(self.name, record)
        launch.on_progress(f"{self.name.label}: starting on port {chosen[0]} ({record.description})")
        try:
            self._await_ready(record, launch, timeout_seconds=self._server.ready_timeout_seconds)
        except BaseException:
            stop_recorded(self.name, self._state)
            raise

    def _await_ready(self, record: ServiceRecord, launch: Launch, *, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        lack = "its port does not answer"
        while time.monotonic() < deadline:
            if ended := running.end_reason(record):
                raise self._failed(record, ended)
            if ports.answers(record.ports[0]):
                try:
                    self._server.probe(record.address(self.name))
                except NotReady as error:
                    lack = str(error)
                else:
                    return
            if launch.cancelled.wait(_POLL_SECONDS):
                raise Cancelled(self.name.label)
        raise self._failed(record, f"not ready after {timeout_seconds:.0f} s ({lack})")

    def _failed(self, record: ServiceRecord, reason: str) -> StartFailed:
        return StartFailed(
            service=self.name.label,
            reason=reason,
            log_path=record.log_path,
            log_tail=running.log_tail(record),
        )


def stop_recorded(name: ServiceName, state: StateDir) -> bool:
    """Stop what the state file says of this service. False when it was not running."""
    record = state.service(name)
    if record is None or not record.should_run:
        return False
    was_running = running.stop(record)
    state.put(name, record.stopped)
    return was_running
