"""What can be done to a recorded service, whether it is a process or a container."""

from sluice.stack import docker_engine, processes
from sluice.stack.state import ServiceRecord

# Kafka writes its snapshots and closes its logs; longer than that it hangs.
_STOP_GRACE_SECONDS = 20.0


def is_alive(record: ServiceRecord) -> bool:
    """Whether it runs now."""
    if record.process is not None:
        return processes.is_alive(record.process)
    return record.container_id is not None and docker_engine.is_running(record.container_id)


def end_reason(record: ServiceRecord) -> str | None:
    """How it ended, or None while it runs."""
    if record.process is not None:
        return processes.end_reason(record.process)
    return None if is_alive(record) else "its container ended"


def stop(record: ServiceRecord) -> bool:
    """Shut it down in order. False when it was not running."""
    if record.process is not None:
        return processes.terminate(record.process, grace_seconds=_STOP_GRACE_SECONDS)
    if record.container_id is not None:
        return docker_engine.remove(record.container_id, log_path=record.log_path, grace_seconds=_STOP_GRACE_SECONDS)
    return False


def kill(record: ServiceRecord) -> None:
    """End it as a crash would."""
    if record.process is not None:
        processes.kill(record.process)
    elif record.container_id is not None:
        docker_engine.remove(record.container_id, log_path=record.log_path, grace_seconds=0)


def log_tail(record: ServiceRecord) -> str:
    """The last lines it wrote."""
    if record.container_id is not None:
        docker_engine.save_log(record.container_id, record.log_path)
    return processes.tail(record.log_path)
