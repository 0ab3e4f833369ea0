"""The Docker engine, through testcontainers: whether one answers, and what we ask of it.

testcontainers' own reaper is off: it would end the containers with this process, and `sluice up --detach` means
to leave them. What it would do, `sluice down` does from the state file. docker and testcontainers are imported
where they are used: they belong to the `stack` extra, and take a third of a second.
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sluice.stack.errors import Cancelled, DockerFailed
from sluice.stack.ports import LOOPBACK

_FIND_TIMEOUT_SECONDS = 3
_REQUEST_TIMEOUT_SECONDS = 60
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What was found: the version of the engine, or the reason why there is none to use."""

    version: str | None = None
    gap: str = ""


@dataclass(frozen=True, kw_only=True)
class ContainerRequest:
    """One container: its port has the same number inside and on 127.0.0.1, its data lies in a named volume."""

    image: str
    port: int
    volume: str
    data_path: str
    command: Sequence[str] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def find_engine() -> Engine:
    """Whether an engine answers whose ports on 127.0.0.1 are ours. Takes a few seconds at most."""
    try:
        from docker.errors import DockerException  # type: ignore[import-untyped]  # noqa: PLC0415
        from testcontainers.core.docker_client import DockerClient, get_docker_host  # noqa: PLC0415
    except ImportError:
        return Engine(gap="Docker is not tried (`pip install 'sluice[stack]'` adds that)")
    address = get_docker_host()
    if address and not _is_local(address):
        return Engine(gap=f"the Docker engine at {address} is on another machine")
    try:
        engine = DockerClient(timeout=_FIND_TIMEOUT_SECONDS)
        version = str(engine.client.version()["Version"])
        host = engine.host()
        engine.client.close()
    except (DockerException, OSError, ValueError):
        return Engine(gap="no Docker engine answers")
    if host not in _LOCAL_HOSTS:
        # We are in a container beside the new ones, and 127.0.0.1 is not the host's.
        return Engine(gap=f"the Docker engine publishes its ports at {host}, not here")
    return Engine(version=version)


def run(request: ContainerRequest, *, cancelled: threading.Event) -> str:
    """Pull the image where it is missing, start the container and return its id."""
    from testcontainers.core.config import testcontainers_config  # noqa: PLC0415
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415

    testcontainers_config.ryuk_disabled = True
    with _errors_named(f"{request.image} could not be started"):
        container = DockerContainer(
            request.image,
            docker_client_kw={"timeout": _REQUEST_TIMEOUT_SECONDS},
            env=dict(request.environment),
            volumes=[(request.volume, request.data_path, "rw")],
        )
        if request.command:
            container.with_command(list(request.command))
        # `with_bind_ports` takes a number and publishes it to the whole network; docker-py takes this pair.
        published: dict[str, Any] = {f"{request.port}/tcp": (LOOPBACK, request.port)}
        container.ports = published
        _pull(container.get_docker_client().client, container.image, cancelled)
        try:
            return str(container.start().get_container_id())
        except BaseException:
            # Created and not started: its port was taken, for one.
            container.stop()
            raise


def is_running(container_id: str) -> bool:
    """Whether this container runs; without an engine it does not."""
    try:
        with _client() as client, _found(client, container_id) as container:
            return container is not None and bool(container.status == "running")
    except DockerFailed:
        return False


def remove(container_id: str, *, log_path: Path, grace_seconds: float) -> bool:
    """Stop and remove a container, its log saved and its volume kept. False when it was not running."""
    save_log(container_id, log_path)
    with _client() as client, _found(client, container_id) as container:
        if container is None:
            return False
        was_running = bool(container.status == "running")
        if was_running and grace_seconds:
            container.stop(timeout=int(grace_seconds))
        # `v` is for the nameless volumes of the image; the named one with the data stays.
        container.remove(force=True, v=True)
        return was_running


def save_log(container_id: str, log_path: Path, *, lines: int = 2_000) -> None:
    """Write the end of the container's output where our error messages point to."""
    with _client() as client, _found(client, container_id) as container:
        if container is not None:
            log_path.parent.mkdir(parents=True, exist_ok=True)
            log_path.write_bytes(container.logs(tail=lines))


def remove_volume(name: str) -> None:
    """Remove a named volume; one that is not there is fine."""
    from docker.errors import NotFound  # noqa: PLC0415

    with _client() as client, contextlib.suppress(NotFound):
        client.volumes.get(name).remove()


def _pull(client: Any, image: str, cancelled: threading.Event) -> None:
    from docker.errors import NotFound  # noqa: PLC0415

    with contextlib.suppress(NotFound):
        client.images.get(image)
        return
    for line in client.api.pull(image, stream=True, decode=True):
        if cancelled.is_set():
            raise Cancelled(image)
        if "error" in line:
            raise DockerFailed(f"{image} could not be pulled: {line['error']}")


@contextlib.contextmanager
def _client() -> Iterator[Any]:
    from testcontainers.core.docker_client import DockerClient  # noqa: PLC0415

    with _errors_named("Docker did not do what was asked"):
        client = DockerClient(timeout=_REQUEST_TIMEOUT_SECONDS).client
        try:
            yield client
        finally:
            client.close()


@contextlib.contextmanager
def _found(client: Any, container_id: str) -> Iterator[Any]:
    from docker.errors import NotFound  # noqa: PLC0415

    try:
        container = client.containers.get(container_id)
    except NotFound:
        container = None
    yield container


@contextlib.contextmanager
def _errors_named(what: str) -> Iterator[None]:
    try:
        from docker.errors import DockerException  # noqa: PLC0415
    except ImportError as error:
        raise DockerFailed(f"{what}: `pip install 'sluice[stack]'` is needed for it") from error
    try:
        yield
    except (DockerException, OSError) as error:
        raise DockerFailed(f"{what}: {error}") from error


def _is_local(address: str) -> bool:
    url = urlsplit(address)
    return url.scheme in {"unix", "npipe", "http+unix"} or url.hostname in _LOCAL_HOSTS
