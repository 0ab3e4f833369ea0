"""The state file: what runs, on which ports, with which data, so that any later process can find or stop it.

It is written by replacing it, so a crash leaves the old or the new one; and only under a lock on the state
directory, so two `sluice up` cannot both start a server. Addresses the user gave are not in it: nothing of
them is ours to stop, and they may hold a password.
"""

import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import filelock
from pydantic import BaseModel, ConfigDict, ValidationError

from sluice.stack.errors import StackBusy, StateUnreadable
from sluice.stack.ports import LOOPBACK
from sluice.stack.processes import ProcessRecord


class Source(StrEnum):
    """Where a service comes from."""

    EXTERNAL = "external"
    DOCKER = "docker"
    JAVA = "java"
    REDIS_SERVER = "redis-server"


class ServiceName(StrEnum):
    """The two services of the stack."""

    KAFKA = "kafka"
    REDIS = "redis"

    @property
    def label(self) -> str:
        """As people write it."""
        return self.value.capitalize()


class ServiceRecord(BaseModel):
    """One service that Sluice started at some time. `process` or `container_id` is there while it should run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Source
    description: str
    ports: tuple[int, ...]
    log_path: Path
    process: ProcessRecord | None = None
    container_id: str | None = None

    def address(self, name: ServiceName) -> str:
        """What clients connect to: `host:port` for Kafka, a URL for Redis."""
        where = f"{LOOPBACK}:{self.ports[0]}"
        return where if name is ServiceName.KAFKA else f"redis://{where}/0"

    @property
    def should_run(self) -> bool:
        """Whether it was started and not stopped; it may have crashed since."""
        return self.process is not None or self.container_id is not None

    @property
    def stopped(self) -> "ServiceRecord":
        """The same without anything running: ports and data are kept for the next start."""
        return self.model_copy(update={"process": None, "container_id": None})


class StackRecord(BaseModel):
    """The content of the state file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    services: dict[ServiceName, ServiceRecord] = {}


class StateDir:
    """One state directory: its paths, its lock and its state file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / "stack.json"
        self.lock_path = path / "stack.lock"
        # One object, so that a thread that holds it may take it again.
        self._lock = filelock.FileLock(self.lock_path)
        self._write_lock = threading.Lock()

    def data_dir(self, name: ServiceName) -> Path:
        return self.path / name

    def log_path(self, name: ServiceName) -> Path:
        return self.path / "logs" / f"{name}.log"

    def volume(self, name: ServiceName) -> str:
        """The Docker volume with this directory's data."""
        return f"sluice-{hashlib.sha256(str(self.path).encode()).hexdigest()[:12]}-{name}"

    @contextmanager
    def locked(self, *, timeout_seconds: float = 90.0) -> Iterator[None]:
        """Hold the directory against other processes while the stack is started or stopped."""
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=timeout_seconds)
        except filelock.Timeout:
            raise StackBusy(lock_path=self.lock_path, waited_seconds=timeout_seconds) from None
        try:
            yield
        finally:
            self._lock.release()

    def read(self) -> StackRecord:
        try:
            content = self.file.read_bytes()
        except FileNotFoundError:
            return StackRecord()
        try:
            return StackRecord.model_validate_json(content)
        except ValidationError as error:
            raise StateUnreadable(path=self.file, reason=str(error.errors()[0]["msg"])) from None

    def service(self, name: ServiceName) -> ServiceRecord | None:
        return self.read().services.get(name)

    def put(self, name: ServiceName, record: ServiceRecord) -> None:
        """Write one service's record; the services start in parallel, in threads of one process."""
        with self._write_lock:
            services = {**self.read().services, name: record}
            self._replace(StackRecord(services=services))

    def purge(self) -> bool:
        """Remove what the stack left here: data, logs and the state file. False when there was nothing."""
        folders = [*(self.data_dir(name) for name in ServiceName), self.path / "logs"]
        there = [folder for folder in folders if folder.is_dir()]
        for folder in there:
            shutil.rmtree(folder)
        had_file = self.file.exists()
        self.file.unlink(missing_ok=True)
        return bool(there) or had_file

    def _replace(self, record: StackRecord) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        new = self.file.with_suffix(f".{os.getpid()}.new")
        new.write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
        new.replace(self.file)
