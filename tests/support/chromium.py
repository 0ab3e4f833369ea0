"""A real Chromium for browser tests: found, or installed where that can be done; never silently missing in CI."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import filelock
import pytest

PATH_VARIABLE = "CHROMIUM_PATH"
NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL_TIMEOUT_SECONDS = 600
ARGUMENTS = (
    "--no-sandbox",  # the tests may run as root, and open no page but their own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",  # without these it looks up hosts of its maker's at every start
    "--disable-component-update",
    "--disable-sync",
)
"""How to start it, beside `--headless`."""


def find_chromium() -> Path | None:
    """CHROMIUM_PATH, else one of the usual names on PATH."""
    named = os.environ.get(PATH_VARIABLE)
    if named:
        return Path(named)
    return next((Path(found) for name in NAMES if (found := shutil.which(name))), None)


def required_chromium() -> Path:
    """A Chromium, installed by apt if need be. Without one the test is skipped, and in CI it fails."""
    found = find_chromium() or _installed()
    if found is not None:
        return found
    reason = f"no Chromium: install one (apt-get install chromium), or name it in {PATH_VARIABLE}"
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _installed() -> Path | None:
    """By Debian's package, where we are root. None where that does not work."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return None
    # Tests run in several processes, and apt in one at a time.
    with filelock.FileLock(Path(tempfile.gettempdir()) / "sluice-chromium.lock", timeout=2 * INSTALL_TIMEOUT_SECONDS):
        return find_chromium() or _install()


def _install() -> Path | None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"],
    ):
        try:
            subprocess.run(command, env=environment, check=True, capture_output=True, timeout=INSTALL_TIMEOUT_SECONDS)
        except (subprocess.SubprocessError, OSError):
            return None
    return find_chromium()
