"""Apache Kafka (KRaft, one node) as a child process under Java."""

from importlib import resources
from pathlib import Path

from sluice.stack import kafka_jars, processes
from sluice.stack.errors import NoSource
from sluice.stack.kafka_settings import KAFKA_VERSION, broker_settings, cluster_id
from sluice.stack.local_service import Server
from sluice.stack.ports import LOOPBACK
from sluice.stack.probes import kafka_metadata
from sluice.stack.resolve import Machine, kafka_gap
from sluice.stack.service import Launch
from sluice.stack.state import ServiceName, ServiceRecord, Source, StateDir

# Relative to the folder the broker runs in: its settings know no quotes, and folder names hold commas and accents.
_DATA = "data"
_PROPERTIES = "server.properties"
_LOG4J2 = "log4j2.properties"
_FORMAT_TIMEOUT_SECONDS = 60.0
# A broker of one developer: little memory, and the quick compiler only, which starts faster.
_JVM_FLAGS = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.net.preferIPv4Stack=true",
    f"-Dlog4j2.configurationFile={_LOG4J2}",
)


def kafka_under_java(machine: Machine, state: StateDir, cache_dir: Path) -> Server:
    """Kafka under the Java of this machine."""
    home = state.data_dir(ServiceName.KAFKA)
    log_path = state.log_path(ServiceName.KAFKA)

    def launch_broker(ports: tuple[int, ...], launch: Launch) -> ServiceRecord:
        if machine.java is None or not machine.java_fits:
            raise NoSource([kafka_gap(machine)])
        jars = _fetch_jars(machine, cache_dir, log_path, launch)
        _write_configuration(home, ports)
        java = [str(machine.java.path), *_JVM_FLAGS, "-cp", f"{jars}/*"]
        # Kafka writes this file last, so a format that was interrupted is done again.
        if not (home / _DATA / "meta.properties").exists():
            launch.on_progress("Kafka: formatting its data folder")
            _format(java, state, launch)
        return ServiceRecord(
            source=Source.JAVA,
            description=f"Apache Kafka {KAFKA_VERSION} under Java {machine.java.major}",
            ports=ports,
            log_path=log_path,
            process=processes.spawn([*java, "kafka.Kafka", _PROPERTIES], cwd=home, log_path=log_path),
        )

    return Server(
        name=ServiceName.KAFKA,
        source=Source.JAVA,
        port_count=2,
        launch=launch_broker,
        probe=kafka_metadata,
        ready_timeout_seconds=60.0,
    )


def _fetch_jars(machine: Machine, cache_dir: Path, log_path: Path, launch: Launch) -> Path:
    if kafka_jars.are_there(cache_dir):
        return kafka_jars.jars_dir(cache_dir)
    if machine.maven is None:
        raise NoSource([kafka_gap(machine)])
    launch.on_progress(f"Kafka: fetching Apache Kafka {KAFKA_VERSION} by Maven (54 MB, once)")
    return kafka_jars.fetch(cache_dir, maven=machine.maven, log_path=log_path, cancelled=launch.cancelled)


def _write_configuration(home: Path, ports: tuple[int, ...]) -> None:
    home.mkdir(parents=True, exist_ok=True)
    log4j2 = resources.files("sluice.stack").joinpath("kafka_log4j2.properties").read_text(encoding="utf-8")
    (home / _LOG4J2).write_text(log4j2, encoding="utf-8")
    client_port, controller_port = ports
    settings = broker_settings(
        listen_on=LOOPBACK, client_port=client_port, controller_port=controller_port, data_dir=_DATA
    )
    lines = (f"{key}={value}\n" for key, value in settings.items())
    (home / _PROPERTIES).write_text("".join(lines), encoding="utf-8")


def _format(java: list[str], state: StateDir, launch: Launch) -> None:
    # One word, because an id may begin with a dash.
    given_id = f"--cluster-id={cluster_id(state.path)}"
    processes.run_to_end(
        [*java, "kafka.tools.StorageTool", "format", given_id, "--config", _PROPERTIES, "--ignore-formatted"],
        cwd=state.data_dir(ServiceName.KAFKA),
        log_path=state.log_path(ServiceName.KAFKA),
        service="Kafka",
        cancelled=launch.cancelled,
        timeout_seconds=_FORMAT_TIMEOUT_SECONDS,
    )
