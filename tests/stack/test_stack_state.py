"""The state file and its lock."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sluice.stack.errors import StackBusy, StateUnreadable
from sluice.stack.processes import ProcessRecord
from sluice.stack.state import ServiceName, ServiceRecord, Source, StateDir


def record(port: int, **fields: object) -> ServiceRecord:
    return ServiceRecord.model_validate(
        {"source": Source.JAVA, "description": "x", "ports": (port,), "log_path": Path("x.log"), **fields}
    )


def test_what_is_written_is_read_by_another_process(state: StateDir) -> None:
    """A record survives the object that wrote it, with its process and its ports."""
    written = record(20_000, process=ProcessRecord(pid=1, started_at=2.5))
    state.put(ServiceName.KAFKA, written)
    assert StateDir(state.path).service(ServiceName.KAFKA) == written


def test_addresses_are_those_of_the_loopback() -> None:
    """Kafka is `host:port`, Redis a URL, both on 127.0.0.1."""
    assert record(20_000).address(ServiceName.KAFKA) == "127.0.0.1:20000"
    assert record(20_001).address(ServiceName.REDIS) == "redis://127.0.0.1:20001/0"


def test_a_stopped_record_keeps_its_ports() -> None:
    """After a stop nothing should run, and the next start may have the same ports."""
    stopped = record(20_000, process=ProcessRecord(pid=1, started_at=2.5)).stopped
    assert not stopped.should_run
    assert stopped.ports == (20_000,)


def test_both_services_can_be_written_at_once(state: StateDir) -> None:
    """Kafka and Redis start in parallel; neither record is lost to the other."""
    with ThreadPoolExecutor(2) as pool:
        for port in range(20_000, 20_050):
            list(pool.map(lambda name, port=port: state.put(name, record(port)), ServiceName))
            assert {name: r.ports for name, r in state.read().services.items()} == dict.fromkeys(ServiceName, (port,))


def test_an_absent_file_means_that_nothing_was_started(state: StateDir) -> None:
    """A fresh directory reads as an empty stack."""
    assert state.read().services == {}


@pytest.mark.parametrize("content", ["", "{", '{"services": {"kafka": {"pid": 1}}}', '{"other": 1}'])
def test_a_file_that_cannot_be_understood_is_named(state: StateDir, content: str) -> None:
    """What runs is then unknown: that is an error that names the file, not an empty stack."""
    state.path.mkdir()
    state.file.write_text(content)
    with pytest.raises(StateUnreadable) as caught:
        state.read()
    assert caught.value.path == state.file
    assert str(state.file) in str(caught.value)


HOLD = """
import sys
from pathlib import Path
from sluice.stack.state import StateDir
with StateDir(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_the_lock_keeps_another_process_out_until_its_holder_dies(state: StateDir) -> None:
    """While another process holds it the start is refused after its timeout; kill -9 of the holder frees it."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(state.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StackBusy) as caught, state.locked(timeout_seconds=0.1):
            pass
        assert caught.value.lock_path == state.lock_path
        holder.kill()
    with state.locked(timeout_seconds=10):
        assert state.lock_path.exists()


def test_purge_removes_what_the_stack_wrote_and_nothing_else(state: StateDir) -> None:
    """A state directory may hold files of others: they stay."""
    state.put(ServiceName.REDIS, record(20_000))
    state.data_dir(ServiceName.KAFKA).mkdir()
    state.log_path(ServiceName.KAFKA).parent.mkdir()
    other = state.path / "notes.txt"
    other.write_text("mine")
    assert state.purge()
    assert [path for path in state.path.iterdir() if path != state.lock_path] == [other]
    assert not state.purge()
