"""A simulator of providers' APIs that is not ours: npm's @copilotkit/aimock, fetched once per user.

It knows the wire formats from another angle than our own fault server, so that the two cannot be wrong together.
"""

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from sluice.stack import ports
from sluice.stack.locations import cache_dir

PACKAGE = "@copilotkit/aimock"
VERSION = "1.43.0"
_INSTALL_TIMEOUT_SECONDS = 300
_READY_TIMEOUT_SECONDS = 60


def missing_programs() -> list[str]:
    """What this machine lacks for it."""
    return [program for program in ("node", "npm") if shutil.which(program) is None]


@contextmanager
def aimock(folder: Path, fixtures: list[dict[str, Any]]) -> Iterator[str]:
    """Its address, until the block ends. It answers by the first fixture that matches."""
    program = _installed()
    fixtures_path, log_path = folder / "fixtures.json", folder / "aimock.log"
    fixtures_path.write_text(json.dumps({"fixtures": fixtures}), encoding="utf-8")
    (port,) = ports.choose(1)
    command = ["node", str(program), "--host", ports.LOOPBACK, "--port", str(port)]
    command += ["--fixtures", str(fixtures_path), "--validate-on-load", "--strict"]
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        give_up_at = time.monotonic() + _READY_TIMEOUT_SECONDS
        while not ports.answers(port):
            if process.poll() is not None or time.monotonic() > give_up_at:
                raise RuntimeError(f"aimock did not start:\n{log_path.read_text()[-3000:]}")
            time.sleep(0.05)
        yield f"http://{ports.LOOPBACK}:{port}"
    finally:
        process.kill()
        process.wait(timeout=10)


def _installed() -> Path:
    final = cache_dir() / f"aimock-{VERSION}"
    final.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{final}.lock", timeout=_INSTALL_TIMEOUT_SECONDS):
        if not final.is_dir():
            # Beside its place and renamed, so that an interrupted download never counts.
            with tempfile.TemporaryDirectory(dir=final.parent, prefix=f"{final.name}.partial-") as partial:
                _install(Path(partial) / "npm")
                (Path(partial) / "npm").rename(final)
    return final / "node_modules" / PACKAGE / "dist" / "cli.js"


def _install(folder: Path) -> None:
    folder.mkdir()
    command = ["npm", "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(
        [*command, f"{PACKAGE}@{VERSION}"],
        capture_output=True,
        text=True,
        timeout=_INSTALL_TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"npm could not fetch {PACKAGE}@{VERSION}:\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
