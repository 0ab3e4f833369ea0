"""What the bridge counts, for Prometheus."""

from collections.abc import Callable, Mapping
from functools import partial

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

from schemas.vocabulary import State


class BridgeMetrics:
    """One set per process, or one per registry in tests."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        where = REGISTRY if registry is None else registry
        self.connections = Gauge("sluice_bridge_connections", "Clients connected.", registry=where)
        self.accepted = Counter("sluice_bridge_connections_accepted", "Clients that connected.", registry=where)
        self.events = Counter(
            "sluice_bridge_events",
            "Records read from Kafka: fresh, stale (an older version, or a repeat), undecodable.",
            ["topic", "outcome"],
            registry=where,
        )
        self.frames_sent = Counter("sluice_bridge_frames_sent", "Frames sent to clients.", registry=where)
        self.statuses_compacted = Counter(
            "sluice_bridge_statuses_compacted", "Statuses left out for a slow client, for newer ones.", registry=where
        )
        self.deltas_joined = Counter(
            "sluice_bridge_deltas_joined", "Deltas joined or left out for a slow client.", registry=where
        )
        self.closes = Counter("sluice_bridge_closes", "Connections closed by the bridge.", ["code"], registry=where)
        self.resumes = Counter(
            "sluice_bridge_resumes", "Clients that came back: recovered, or which gap.", ["outcome"], registry=where
        )
        self.lag_seconds = Gauge("sluice_bridge_lag_seconds", "How far the bridge is behind Kafka.", registry=where)
        self._requests = Gauge(
            "sluice_bridge_requests", "Requests remembered, by newest state.", ["state"], registry=where
        )

    def watch_requests(self, counts: Callable[[], Mapping[State, int]]) -> None:
        for state in State:
            self._requests.labels(state).set_function(partial(_count, counts, state))


def _count(counts: Callable[[], Mapping[State, int]], state: State) -> int:
    return counts()[state]
