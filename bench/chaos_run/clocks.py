"""Wall clocks that can be set wrong, process by process: libfaketime, preloaded, adds to them what a file says.

Monotonic clocks go on, as they do on a host whose wall clock is stepped. Kafka, Redis, the providers and the checker
keep the true time.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

HOW_TO_GET_IT = "libfaketime: `make test` installs it on Linux, x86-64; elsewhere `apt-get install faketime`"
_PLACES = ("usr/lib/*/faketime", "usr/lib*/faketime", "usr/local/lib/faketime")
_NAMES = ("libfaketimeMT.so.1", "libfaketime.so.1")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - libfaketime's choice
_PROBE_STEP_SECONDS = 3600.0
_PROBE_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class SteppedClock:
    """The wall clock of one process that is started with `environment()`."""

    library: Path
    path: Path

    def step(self, seconds: float) -> None:
        """From now on it is ahead by so much, or behind; 0: it is right."""
        written = self.path.with_suffix(".new")
        written.write_text(f"{seconds:+.3f}\n")
        written.replace(self.path)

    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": ":".join(filter(None, (str(self.library), os.environ.get("LD_PRELOAD")))),
            "FAKETIME_TIMESTAMP_FILE": str(self.path),
            # A step shows at once; each look at the clock costs 3 us for that.
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Else Python's modules look newer than what was compiled of them.
            "NO_FAKE_STAT": "1",
        }


def find_library() -> Path | None:
    """A libfaketime that works here: a process was started with it, and had another time."""
    return next((library for library in _candidates() if _works(library)), None)


def forget(pid: int) -> None:
    """Removes what libfaketime leaves in shared memory when its process is killed."""
    for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
        (_SHARED_MEMORY / name).unlink(missing_ok=True)


def _candidates() -> Iterator[Path]:
    package = find_spec("libfaketime")
    if package is not None and package.origin is not None:
        yield Path(package.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    for place in _PLACES:
        for name in _NAMES:
            yield from Path("/").glob(f"{place}/{name}")


def _works(library: Path) -> bool:
    """Its wheel names no platform, so one that cannot be loaded here may have been installed."""
    if not library.exists():
        return False
    with tempfile.TemporaryDirectory(prefix="sluice-clock-") as folder:
        clock = SteppedClock(library=library, path=Path(folder) / "clock")
        clock.step(_PROBE_STEP_SECONDS)
        asked = subprocess.run(
            [sys.executable, "-I", "-S", "-c", "import time; print(time.time())"],
            env={**os.environ, **clock.environment()},
            capture_output=True,
            text=True,
            check=False,
            timeout=_PROBE_SECONDS,
        )
    try:
        return float(asked.stdout) - time.time() > _PROBE_STEP_SECONDS / 2
    except ValueError:
        return False
