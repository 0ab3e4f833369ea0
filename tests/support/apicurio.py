"""A real schema registry with Confluent's API: Apicurio Registry in memory, fetched once per user by Maven."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from sluice.stack import ports
from sluice.stack.locations import cache_dir

VERSION = "3.0.9"
_ARTIFACT = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
_DOWNLOAD_TIMEOUT_SECONDS = 600
_READY_TIMEOUT_SECONDS = 60


def missing_programs() -> list[str]:
    """What this machine lacks for it."""
    return [program for program in ("java", "mvn") if shutil.which(program) is None]


class Apicurio:
    """One registry process. It forgets everything when it stops."""

    def __init__(self, folder: Path) -> None:
        self._application = _installed()
        self._log_path = folder / "apicurio.log"
        (self._port,) = ports.choose(1)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{ports.LOOPBACK}:{self._port}/apis/ccompat/v7"

    def start(self) -> None:
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
                    *(f"-Dquarkus.http.host={ports.LOOPBACK}", f"-Dquarkus.http.port={self._port}"),
                    *("-jar", str(self._application / f"apicurio-registry-app-{VERSION}-runner.jar")),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        give_up_at = time.monotonic() + _READY_TIMEOUT_SECONDS
        while not ports.answers(self._port):
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                raise RuntimeError(f"Apicurio did not start:\n{self._log_path.read_text()[-3000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None


@contextmanager
def apicurio(folder: Path) -> Iterator[Apicurio]:
    """Runs until the block ends."""
    registry = Apicurio(folder)
    registry.start()
    try:
        yield registry
    finally:
        registry.stop()


def _installed() -> Path:
    final = cache_dir() / f"apicurio-{VERSION}"
    final.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{final}.lock", timeout=_DOWNLOAD_TIMEOUT_SECONDS):
        if not final.is_dir():
            # Beside its place and renamed, so that an interrupted download never counts.
            with tempfile.TemporaryDirectory(dir=final.parent, prefix=f"{final.name}.partial-") as partial:
                _unpack(Path(partial) / "application")
                (Path(partial) / "application").rename(final)
    return final


def _unpack(target: Path) -> None:
    command = ["mvn", "--batch-mode", "--no-transfer-progress", "--strict-checksums", "dependency:unpack"]
    command += [f"-Dartifact={_ARTIFACT}", f"-DoutputDirectory={target}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_SECONDS, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"Maven could not fetch {_ARTIFACT}:\n{done.stdout[-3000:]}")
