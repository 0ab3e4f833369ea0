"""Fetching Kafka: once, whole or not at all."""

import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from stack_support import wait_until

from sluice.stack import kafka_jars
from sluice.stack.errors import Cancelled, StartFailed

# Puts one jar where Maven is asked to, and counts its runs.
COPIES = """
for argument in "$@"; do case "$argument" in -DoutputDirectory=*) target="${argument#*=}";; esac; done
echo run >> "$(dirname "$0")/runs"
mkdir -p "$target" && echo jar > "$target/kafka_2.13.jar"
"""


def maven(tmp_path: Path, script: str) -> Path:
    path = tmp_path / "mvn"
    # Written by another process: one that we fork meanwhile would hold it open for writing, and nobody could run it.
    command = ["/bin/sh", "-c", 'cat > "$0.$$" && chmod 755 "$0.$$" && mv "$0.$$" "$0"', str(path)]
    subprocess.run(command, input=f"#!/bin/sh\n{script}".encode(), check=True)
    return path


def fetch(tmp_path: Path, script: str, cancelled: threading.Event | None = None) -> Path:
    return kafka_jars.fetch(
        tmp_path / "cache",
        maven=maven(tmp_path, script),
        log_path=tmp_path / "maven.log",
        cancelled=cancelled or threading.Event(),
    )


def test_jars_are_fetched_once(tmp_path: Path) -> None:
    """The second start finds the folder and runs no Maven."""
    folder = fetch(tmp_path, COPIES)
    assert folder == fetch(tmp_path, COPIES)
    assert [path.name for path in folder.iterdir()] == ["kafka_2.13.jar"]
    assert (tmp_path / "runs").read_text() == "run\n"


def test_two_checkouts_fetch_once(tmp_path: Path) -> None:
    """Of two fetches at once the second waits for the first and uses its jars."""
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: fetch(tmp_path, COPIES), range(2)))
    assert folders[0] == folders[1]
    assert (tmp_path / "runs").read_text() == "run\n"


def test_a_failed_fetch_does_not_count(tmp_path: Path) -> None:
    """When Maven fails half way its words are quoted, and the next start fetches again."""
    with pytest.raises(StartFailed, match="no route to Maven Central"):
        fetch(tmp_path, COPIES + "echo 'no route to Maven Central'; exit 1\n")
    assert not kafka_jars.are_there(tmp_path / "cache")
    fetch(tmp_path, COPIES)
    assert kafka_jars.are_there(tmp_path / "cache")


def test_an_interrupted_fetch_does_not_count(tmp_path: Path) -> None:
    """Ctrl-C ends Maven; nothing of the half download stays."""
    cancelled = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        fetching = pool.submit(fetch, tmp_path, COPIES + "exec sleep 600\n", cancelled)
        wait_until((tmp_path / "runs").exists)
        cancelled.set()
        with pytest.raises(Cancelled):
            fetching.result(timeout=20)
    assert not kafka_jars.are_there(tmp_path / "cache")
    assert list((tmp_path / "cache").glob("*.partial-*")) == []


def test_what_a_killed_fetch_left_is_removed(tmp_path: Path) -> None:
    """A download that kill -9 broke off is cleared away by the next one."""
    left_over = tmp_path / "cache" / "kafka-4.3.0.partial-old"
    left_over.mkdir(parents=True)
    (left_over / "half.jar").write_text("x")
    fetch(tmp_path, COPIES)
    assert not left_over.exists()
