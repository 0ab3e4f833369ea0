"""A server of ours: started, found again, restarted on its ports, and reported when it fails."""

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from stack_support import NEVER_LISTENS, listener_server

from sluice.stack import local_service, ports, processes
from sluice.stack.errors import Cancelled, StartFailed
from sluice.stack.local_service import LocalService
from sluice.stack.probes import NotReady
from sluice.stack.service import Condition, Launch
from sluice.stack.state import ServiceName, StateDir


def launch() -> Launch:
    return Launch(on_progress=lambda _: None)


def pid_of(state: StateDir) -> int:
    record = state.service(ServiceName.KAFKA)
    assert record is not None
    assert record.process is not None
    return record.process.pid


def test_the_second_start_attaches_to_the_first(state: StateDir) -> None:
    """A running server is used as it is, by an object that knows that it did not start it."""
    first, second = LocalService(listener_server(state), state), LocalService(listener_server(state), state)
    first.ensure(launch())
    pid = pid_of(state)
    second.ensure(launch())
    assert pid_of(state) == pid
    assert (first.started_here, second.started_here) == (True, False)
    assert first.address == second.address


def test_a_stopped_server_comes_back_on_its_ports(state: StateDir) -> None:
    """An address in somebody's shell is still right after stop and start."""
    service = LocalService(listener_server(state, port_count=2), state)
    service.ensure(launch())
    address = service.address
    assert service.stop()
    assert service.condition() is Condition.STOPPED
    service.start()
    assert service.condition() is Condition.RUNNING
    assert service.address == address


def test_a_killed_server_is_seen_as_crashed_and_started_again(state: StateDir) -> None:
    """After kill the condition is crashed, and start brings a new process to the same address."""
    service = LocalService(listener_server(state), state)
    service.ensure(launch())
    address, pid = service.address, pid_of(state)
    service.kill()
    assert service.condition() is Condition.CRASHED
    service.start()
    assert (service.address, pid_of(state) != pid) == (address, True)


def test_restart_gives_another_process(state: StateDir) -> None:
    """Restart stops the old process before the new one starts."""
    service = LocalService(listener_server(state), state)
    service.ensure(launch())
    old = state.service(ServiceName.KAFKA)
    assert old is not None
    assert old.process is not None
    service.restart()
    assert pid_of(state) != old.process.pid
    assert not processes.is_alive(old.process)


def test_ports_that_another_program_took_are_replaced(state: StateDir) -> None:
    """When the recorded port is taken while the server is down, it comes back on another one."""
    service = LocalService(listener_server(state), state)
    service.ensure(launch())
    port = int(service.address.rpartition(":")[2])
    service.stop()
    with socket.create_server((ports.LOOPBACK, port)):
        service.start()
        assert service.address != f"{ports.LOOPBACK}:{port}"


def test_a_port_taken_between_choice_and_bind_is_survived(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server whose port was snatched ends; the start goes on with other ports."""
    told: list[str] = []
    with socket.create_server((ports.LOOPBACK, 0)) as snatched:
        choices = [(ports.choose(1)[0], snatched.getsockname()[1]), ports.choose(2)]
        monkeypatch.setattr(ports, "choose", lambda *_, **__: choices.pop(0))
        service = LocalService(listener_server(state, port_count=2), state)
        service.ensure(Launch(on_progress=told.append))
    assert service.condition() is Condition.RUNNING
    assert any("a port was taken meanwhile" in line for line in told)


def test_a_server_that_ends_at_once_is_quoted(state: StateDir) -> None:
    """The error names the log and quotes it, and the state file says that nothing runs."""
    service = LocalService(listener_server(state, "raise SystemExit('bad data folder')"), state)
    with pytest.raises(StartFailed) as caught:
        service.ensure(launch())
    assert str(state.log_path(ServiceName.KAFKA)) in str(caught.value)
    assert "| bad data folder" in str(caught.value)
    assert service.condition() is Condition.STOPPED


def test_a_server_that_never_answers_is_stopped(state: StateDir) -> None:
    """One that runs and does not listen is ended after its time, and the error says so."""
    silent = listener_server(state, NEVER_LISTENS, ready_timeout_seconds=0.3)
    with pytest.raises(StartFailed, match="its port does not answer"):
        LocalService(silent, state).ensure(launch())
    record = state.service(ServiceName.KAFKA)
    assert record is not None
    assert not record.should_run


def test_a_cancelled_start_leaves_no_server(state: StateDir) -> None:
    """When the start is given up while the server is not ready yet, it is stopped."""
    given_up = launch()
    given_up.cancelled.set()
    with pytest.raises(Cancelled):
        LocalService(listener_server(state, NEVER_LISTENS), state).ensure(given_up)
    record = state.service(ServiceName.KAFKA)
    assert record is not None
    assert not record.should_run


def test_a_running_server_that_does_not_answer_is_replaced(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hanging server is stopped and started anew; the one that does it has started it."""
    monkeypatch.setattr(local_service, "_ATTACH_TIMEOUT_SECONDS", 0.3)
    LocalService(listener_server(state), state).ensure(launch())
    hanging = pid_of(state)
    server = listener_server(state)

    def only_the_new_one_answers(_address: str) -> None:
        if pid_of(state) == hanging:
            raise NotReady("it hangs")

    second = LocalService(replace(server, probe=only_the_new_one_answers), state)
    second.ensure(launch())
    assert second.started_here
    assert pid_of(state) != hanging


START = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from stack_support import listener_server
from sluice.stack.local_service import LocalService
from sluice.stack.service import Launch
from sluice.stack.state import StateDir
state = StateDir(Path(sys.argv[2]))
service = LocalService(listener_server(state), state)
sys.stdin.readline()
with state.locked():
    service.ensure(Launch(on_progress=lambda _: None))
print(service.started_here, service.address, flush=True)
"""


def test_of_two_starts_at_once_one_starts_and_both_have_the_same_server(state: StateDir) -> None:
    """Two processes race; the lock lets one start the server and the other one attach to it."""
    here = str(Path(__file__).parent)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", START, here, str(state.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    answers = [racer.communicate(timeout=60)[0].split() for racer in racers]
    assert sorted(started for started, _ in answers) == ["False", "True"]
    assert len({address for _, address in answers}) == 1
