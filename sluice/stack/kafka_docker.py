"""Apache Kafka (KRaft, one node) as a container."""

from sluice.stack import docker_engine
from sluice.stack.docker_engine import ContainerRequest
from sluice.stack.kafka_settings import KAFKA_VERSION, broker_settings, cluster_id
from sluice.stack.local_service import Server
from sluice.stack.probes import kafka_metadata
from sluice.stack.service import Launch
from sluice.stack.state import ServiceName, ServiceRecord, Source, StateDir

_IMAGE = f"apache/kafka:{KAFKA_VERSION}"
# A volume of the image, owned by the user it runs as.
_DATA_PATH = "/var/lib/kafka/data"
# Inside the container, and not published.
_CONTROLLER_PORT = 19_093


def kafka_in_docker(state: StateDir) -> Server:
    """Kafka in the official image of Apache."""

    def launch_container(ports: tuple[int, ...], launch: Launch) -> ServiceRecord:
        launch.on_progress(f"Kafka: starting the container {_IMAGE} (fetched where it is missing)")
        container_id = docker_engine.run(container_request(state, ports[0]), cancelled=launch.cancelled)
        return ServiceRecord(
            source=Source.DOCKER,
            description=f"Docker, {_IMAGE}",
            ports=ports,
            log_path=state.log_path(ServiceName.KAFKA),
            container_id=container_id,
        )

    return Server(
        name=ServiceName.KAFKA,
        source=Source.DOCKER,
        port_count=1,
        launch=launch_container,
        probe=kafka_metadata,
        ready_timeout_seconds=90.0,
    )


def container_request(state: StateDir, port: int) -> ContainerRequest:
    """The container that clients reach at 127.0.0.1:`port`."""
    settings = broker_settings(
        # Of the container: only 127.0.0.1 of the host leads there.
        listen_on="0.0.0.0",  # noqa: S104
        client_port=port,
        controller_port=_CONTROLLER_PORT,
        data_dir=f"{_DATA_PATH}/kraft",
    )
    return ContainerRequest(
        image=_IMAGE,
        port=port,
        volume=state.volume(ServiceName.KAFKA),
        data_path=_DATA_PATH,
        environment={
            # The image turns KAFKA_NODE_ID into node.id; what is given replaces its own settings entirely.
            **{f"KAFKA_{key.upper().replace('.', '_')}": value for key, value in settings.items()},
            "CLUSTER_ID": cluster_id(state.path),
            "KAFKA_HEAP_OPTS": "-Xmx512m",
        },
    )
