"""The settings of the local one-node broker (KRaft), the same whether Java or Docker runs it."""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

KAFKA_VERSION = "4.3.0"

_ONE_NODE: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    # A topic comes from `sluice topics create`, with its stated settings, never from a typing error.
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    # Tests of crashes wait for a dead worker's session to end; Kafka's own minimum is 6 s.
    "group.min.session.timeout.ms": "1000",
    # After a crash the next start waits for the session of the crashed one to end: 9 s by default.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
}


def broker_settings(*, listen_on: str, client_port: int, controller_port: int, data_dir: str) -> dict[str, str]:
    """The settings of a broker that clients reach at 127.0.0.1:`client_port`."""
    return {
        **_ONE_NODE,
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://{listen_on}:{client_port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{client_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": data_dir,
    }


def cluster_id(state_dir: Path) -> str:
    """The same id at each start of one state directory; another directory has another one."""
    digest = hashlib.sha256(str(state_dir).encode()).digest()[:16]
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
