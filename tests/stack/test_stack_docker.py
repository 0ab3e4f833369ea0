"""Kafka and Redis as containers, against a fake engine that docker-py takes for a real one."""

import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from fake_docker_engine import VERSION, FakeEngine, fake_engine
from testcontainers.core.config import testcontainers_config

from sluice.stack import docker_engine, kafka_docker, running
from sluice.stack.errors import Cancelled, DockerFailed
from sluice.stack.kafka_settings import cluster_id
from sluice.stack.local_service import LocalService
from sluice.stack.redis_docker import redis_in_docker
from sluice.stack.service import Condition, Launch
from sluice.stack.state import ServiceName, StateDir


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose name leaves room for a Unix socket's path."""
    with tempfile.TemporaryDirectory(prefix="sl") as folder:
        yield Path(folder)


@pytest.fixture
def engine(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    # Where the tests themselves run in a container, testcontainers would look for the engine's ports elsewhere.
    monkeypatch.setattr(testcontainers_config, "tc_host_override", "localhost")
    with fake_engine(short_path) as engine:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{engine.socket}")
        yield engine


def launch() -> Launch:
    return Launch(on_progress=lambda _: None)


def test_an_engine_that_answers_is_found(engine: FakeEngine) -> None:
    """Its version is known, so Docker is a source."""
    assert docker_engine.find_engine().version == VERSION


def test_no_engine_is_a_gap_and_no_error(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody listens on the engine's socket, the reason is given in words."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{short_path / 'absent.sock'}")
    found = docker_engine.find_engine()
    assert (found.version, found.gap) == (None, "no Docker engine answers")


def test_an_engine_that_hangs_is_given_up(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that accepts and never replies does not hang the start."""
    monkeypatch.setattr(docker_engine, "_FIND_TIMEOUT_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(short_path / "silent.sock"))
        silent.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{short_path / 'silent.sock'}")
        assert docker_engine.find_engine().gap == "no Docker engine answers"


@pytest.mark.parametrize("address", ["tcp://docker.example:2375", "ssh://me@far"])
def test_an_engine_on_another_machine_is_not_used(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ports on 127.0.0.1 are not ours; nothing is connected to."""
    monkeypatch.setenv("DOCKER_HOST", address)
    found = docker_engine.find_engine()
    assert found.version is None
    assert address in found.gap


def test_redis_in_a_container_keeps_its_data_and_its_port(engine: FakeEngine, state: StateDir) -> None:
    """Pulled, published on 127.0.0.1 only, ready; after stop and start its data and its address are the same."""
    service = LocalService(redis_in_docker(state), state)
    service.ensure(launch())
    assert engine.images == {"redis:7.2-alpine"}
    (container,) = engine.containers.values()
    port = service.address.split(":")[2].removesuffix("/0")
    bindings = container.request["HostConfig"]["PortBindings"]
    assert bindings == {f"{port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": port}]}

    with redis.Redis.from_url(service.address) as client:
        client.set("kept", "yes")
    address = service.address
    assert service.stop()
    assert engine.containers == {}
    service.start()
    assert service.address == address
    with redis.Redis.from_url(service.address, decode_responses=True) as client:
        assert client.get("kept") == "yes"


def test_a_container_that_runs_is_attached_to(engine: FakeEngine, state: StateDir) -> None:
    """The second start finds the first one's container in the state file, and starts none."""
    LocalService(redis_in_docker(state), state).ensure(launch())
    second = LocalService(redis_in_docker(state), StateDir(state.path))
    second.ensure(launch())
    assert not second.started_here
    assert len(engine.containers) == 1


def test_a_killed_container_is_crashed_and_replaced(engine: FakeEngine, state: StateDir) -> None:
    """Kill is seen as a crash; a start brings another container and leaves no remains."""
    service = LocalService(redis_in_docker(state), state)
    service.ensure(launch())
    service.kill()
    assert service.condition() is Condition.CRASHED
    service.start()
    assert service.condition() is Condition.RUNNING
    assert len(engine.containers) == 1


def test_the_log_of_a_container_is_saved_when_it_is_stopped(engine: FakeEngine, state: StateDir) -> None:
    """The container is removed, what it wrote stays where our messages point to."""
    service = LocalService(redis_in_docker(state), state)
    service.ensure(launch())
    service.stop()
    assert state.log_path(ServiceName.REDIS).read_text() == "what the container wrote\n"


def test_a_volume_is_removed_once(engine: FakeEngine, state: StateDir) -> None:
    """Removing the data of a container works, and again is no error."""
    service = LocalService(redis_in_docker(state), state)
    service.ensure(launch())
    service.stop()
    assert engine.volumes == {state.volume(ServiceName.REDIS)}
    docker_engine.remove_volume(state.volume(ServiceName.REDIS))
    docker_engine.remove_volume(state.volume(ServiceName.REDIS))
    assert engine.volumes == set()


def test_an_image_that_cannot_be_pulled_is_named(engine: FakeEngine, state: StateDir) -> None:
    """The engine's own words are in the error."""
    engine.unpullable.add("redis:7.2-alpine")
    with pytest.raises(DockerFailed, match=r"redis:7\.2-alpine could not be pulled: manifest for .* not found"):
        LocalService(redis_in_docker(state), state).ensure(launch())
    assert engine.containers == {}


def test_a_pull_that_was_given_up_starts_nothing(engine: FakeEngine, state: StateDir) -> None:
    """Ctrl-C during the pull leaves no container."""
    given_up = launch()
    given_up.cancelled.set()
    with pytest.raises(Cancelled):
        LocalService(redis_in_docker(state), state).ensure(given_up)
    assert engine.containers == {}


def test_an_engine_that_went_away_means_that_nothing_runs(engine: FakeEngine, state: StateDir) -> None:
    """With Docker ended, the recorded container counts as not running, and stopping it is a named error."""
    service = LocalService(redis_in_docker(state), state)
    service.ensure(launch())
    record = state.service(ServiceName.REDIS)
    assert record is not None
    engine.socket.unlink()
    assert not running.is_alive(record)
    with pytest.raises(DockerFailed):
        service.stop()


def test_a_container_that_could_not_be_started_is_removed(engine: FakeEngine, state: StateDir) -> None:
    """What the engine created and then refused to start does not stay behind."""
    with pytest.raises(DockerFailed):
        docker_engine.run(kafka_docker.container_request(state, 20_500), cancelled=threading.Event())
    assert len(engine.requested) == 1
    assert engine.containers == {}


def test_the_kafka_container_gets_the_settings_of_the_broker(engine: FakeEngine, state: StateDir) -> None:
    """Apache's image receives each setting as KAFKA_*, advertises 127.0.0.1, and its port is not for the network."""
    request = kafka_docker.container_request(state, 20_500)
    engine.images.add(request.image)
    with pytest.raises(DockerFailed, match="this engine runs Redis only"):
        docker_engine.run(request, cancelled=threading.Event())
    (asked,) = engine.requested
    environment = dict(line.split("=", 1) for line in asked["Env"])
    assert environment["KAFKA_PROCESS_ROLES"] == "broker,controller"
    assert environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert environment["KAFKA_ADVERTISED_LISTENERS"] == "PLAINTEXT://127.0.0.1:20500"
    assert environment["KAFKA_LISTENERS"].startswith("PLAINTEXT://0.0.0.0:20500,CONTROLLER://127.0.0.1:")
    assert environment["CLUSTER_ID"] == cluster_id(state.path)
    assert asked["HostConfig"]["PortBindings"] == {"20500/tcp": [{"HostIp": "127.0.0.1", "HostPort": "20500"}]}
    assert environment["KAFKA_LOG_DIRS"].startswith(asked["HostConfig"]["Binds"][0].split(":")[1])
