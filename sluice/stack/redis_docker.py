"""Redis as a container."""

from sluice.stack import docker_engine
from sluice.stack.docker_engine import ContainerRequest
from sluice.stack.local_service import Server
from sluice.stack.probes import redis_ping
from sluice.stack.redis_settings import REDIS_OPTIONS
from sluice.stack.service import Launch
from sluice.stack.state import ServiceName, ServiceRecord, Source, StateDir

# The last release line under the BSD licence.
_IMAGE = "redis:7.2-alpine"


def redis_in_docker(state: StateDir) -> Server:
    """Redis in the official image."""

    def launch_container(ports: tuple[int, ...], launch: Launch) -> ServiceRecord:
        launch.on_progress(f"Redis: starting the container {_IMAGE} (fetched where it is missing)")
        container_id = docker_engine.run(container_request(state, ports[0]), cancelled=launch.cancelled)
        return ServiceRecord(
            source=Source.DOCKER,
            description=f"Docker, {_IMAGE}",
            ports=ports,
            log_path=state.log_path(ServiceName.REDIS),
            container_id=container_id,
        )

    return Server(
        name=ServiceName.REDIS,
        source=Source.DOCKER,
        port_count=1,
        launch=launch_container,
        probe=redis_ping,
        ready_timeout_seconds=60.0,
    )


def container_request(state: StateDir, port: int) -> ContainerRequest:
    """The container that clients reach at 127.0.0.1:`port`."""
    return ContainerRequest(
        image=_IMAGE,
        port=port,
        volume=state.volume(ServiceName.REDIS),
        data_path="/data",
        command=["redis-server", "--port", str(port), *REDIS_OPTIONS],
    )
