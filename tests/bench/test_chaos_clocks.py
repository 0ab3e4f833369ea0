"""Wall clocks of the chaos run: stepped at run time, in one process, and its monotonic clock goes on."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.chaos_run import clocks
from bench.chaos_run.clocks import SteppedClock, find_library

LIBRARY = find_library()
needs_library = pytest.mark.skipif(LIBRARY is None, reason=f"needs {clocks.HOW_TO_GET_IT}")

_TELL = "import sys, time\nfor line in sys.stdin: print(time.time(), time.monotonic(), flush=True)"


@dataclass(frozen=True)
class Told:
    """By how much its wall clock is ahead of ours, and its monotonic clock, in seconds."""

    wall_ahead: float
    monotonic_ahead: float


class Asked:
    """A process that tells its time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def tell(self) -> Told:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        wall, monotonic = map(float, self._process.stdout.readline().split())
        return Told(wall - time.time(), monotonic - time.monotonic())

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def process_with(clock: SteppedClock) -> Iterator[Asked]:
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _TELL],
        env={**os.environ, **clock.environment()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Asked(process)
        finally:
            process.kill()
    clocks.forget(process.pid)


def stepped_clock(folder: Path) -> SteppedClock:
    assert LIBRARY is not None
    clock = SteppedClock(library=LIBRARY, path=folder / "clock")
    clock.step(0)
    return clock


@needs_library
def test_a_clock_is_stepped_to_and_fro_while_the_monotonic_one_goes_on(tmp_path: Path) -> None:
    clock = stepped_clock(tmp_path)
    with process_with(clock) as asked:
        for step in (0, 600, -600, 0):
            clock.step(step)
            told = asked.tell()
            assert told.wall_ahead == pytest.approx(step, abs=60)
            assert told.monotonic_ahead == pytest.approx(0, abs=60)


@needs_library
def test_the_clock_of_another_process_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    one, other = stepped_clock(tmp_path / "one"), stepped_clock(tmp_path / "other")
    with process_with(one) as first, process_with(other) as second:
        one.step(600)
        assert first.tell().wall_ahead == pytest.approx(600, abs=60)
        assert second.tell().wall_ahead == pytest.approx(0, abs=60)


@needs_library
def test_what_a_killed_process_leaves_in_shared_memory_is_removed(tmp_path: Path) -> None:
    """libfaketime names it by the process, and would not start in another one of that number."""
    with process_with(stepped_clock(tmp_path)) as asked:
        asked.tell()
        asked.kill()
        assert _left_of(asked.pid)
        clocks.forget(asked.pid)
        assert not _left_of(asked.pid)


def test_a_library_that_cannot_be_loaded_here_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its wheel claims to suit every platform."""
    of_elsewhere = tmp_path / "libfaketime.so.1"
    of_elsewhere.write_bytes(b"\x7fELF of another machine")
    monkeypatch.setattr(clocks, "_candidates", lambda: iter((tmp_path / "missing.so.1", of_elsewhere)))
    assert find_library() is None


def _left_of(pid: int) -> list[str]:
    return [path.name for path in Path("/dev/shm").iterdir() if path.name.endswith(f"_{pid}")]  # noqa: S108
