"""The local stack: a Kafka and a Redis that answer, wherever this machine can get them from.

Layer `sluice`. It imports nothing of ours but the clients' settings, to reach a Kafka or a Redis of the user's own
(`own_probes.py`). The demo, `sluice up` and the tests use the same call:

    with stack.start(on_progress=print) as running:
        running.kafka_bootstrap, running.redis_url

`resolve.py` decides where they come from, out of the facts that `machine.py` gathers: the user's own address, else
Docker, else Java and redis-server. `state.py` is the file in which any later process finds what runs.
"""

from sluice.stack.errors import (
    Cancelled,
    DockerFailed,
    ExternalUnreachable,
    NoSource,
    NotOurs,
    StackBusy,
    StackError,
    StartFailed,
    StateUnreadable,
)
from sluice.stack.probes import NotReady
from sluice.stack.service import Condition, Service
from sluice.stack.stack import (
    Addresses,
    ExternalProbes,
    RunningStack,
    Stopped,
    find_running,
    start,
    stop_all,
)

__all__ = [
    "Addresses",
    "Cancelled",
    "Condition",
    "DockerFailed",
    "ExternalProbes",
    "ExternalUnreachable",
    "NoSource",
    "NotOurs",
    "NotReady",
    "RunningStack",
    "Service",
    "StackBusy",
    "StackError",
    "StartFailed",
    "StateUnreadable",
    "Stopped",
    "find_running",
    "start",
    "stop_all",
]
