"""The bridge as a role: feed, hub and server together."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry

from connectors.settings import BridgeSettings, Settings, TicketSettings
from schemas.codec import Codec
from websocket_bridge.feed import Feed
from websocket_bridge.hub import Hub
from websocket_bridge.messages import Scope
from websocket_bridge.metrics import BridgeMetrics
from websocket_bridge.roster import HubLimits
from websocket_bridge.server import BridgeServer
from websocket_bridge.server_tls import server_context
from websocket_bridge.session import SessionLimits
from websocket_bridge.tickets import KeySet, Tickets, key_set_of_file, key_set_of_url
from websocket_bridge.viewer import Viewer


class Bridge:
    """`run(stop)` serves until `stop` is set. Raises `PublicAddressError` at once for an address it may not serve.

    `client_options` are what aiokafka's clients need to reach the brokers: `connectors.kafka.client.client_options`.
    """

    def __init__(
        self,
        settings: Settings,
        codec: Codec,
        *,
        client_options: Mapping[str, Any],
        registry: CollectorRegistry | None = None,
        insecure_public: bool = False,
    ) -> None:
        bridge = settings.bridge
        metrics = BridgeMetrics(registry)
        tickets = tickets_of(bridge.tickets)
        anybody = Viewer(scope=Scope.OPERATOR if bridge.allow_all else Scope.IDS)
        hub = Hub(limits_of(bridge), metrics, default_viewer=anybody if tickets is None else None)
        self._feed = Feed(
            hub=hub,
            metrics=metrics,
            topics=settings.topics,
            codec=codec,
            client_options=client_options,
            replay_seconds=bridge.replay_seconds,
        )
        self._server = BridgeServer(
            hub,
            metrics,
            host=bridge.host,
            port=bridge.port,
            allowed_origins=bridge.allowed_origins,
            insecure_public=insecure_public,
            tickets=tickets,
            tls=server_context(bridge.tls),
        )

    @property
    def ready(self) -> bool:
        """Serving, and since the start it once showed all that Kafka had. An outage of Kafka later on does not
        undo it: clients are told of that, and a bridge that remembers is better than none."""
        return self._server.is_serving and self._feed.has_caught_up

    @property
    def url(self) -> str:
        """Where the page is, once `run` serves."""
        return self._server.url

    @property
    def connections(self) -> tuple[int, int]:
        """How many there ever were, and how many are open."""
        return self._server.connections

    async def run(self, stop: asyncio.Event, *, on_serving: Callable[[str], None] | None = None) -> None:
        """Serves until `stop` is set; then closes its clients and returns. `on_serving` gets the page's address."""
        async with self._server, asyncio.TaskGroup() as tasks:
            feed = tasks.create_task(self._feed.run())
            if on_serving is not None:
                on_serving(self._server.url)
            await stop.wait()
            feed.cancel()


def limits_of(bridge: BridgeSettings) -> HubLimits:
    """The hub's bounds, from the settings."""
    return HubLimits(
        session=SessionLimits(max_subscriptions=bridge.max_subscriptions),
        max_connections=bridge.max_connections,
        remembered_requests=bridge.remembered_requests,
        outbox_events=bridge.send_buffer_events,
        replay_bytes=bridge.replay_bytes,
        resume_events=bridge.resume_events,
        commands_per_second=bridge.commands_per_second,
        position_seconds=bridge.position_seconds,
        authenticate_seconds=bridge.authenticate_seconds,
        idle_seconds=bridge.idle_seconds,
        max_connections_per_user=bridge.max_connections_per_user,
        max_connections_per_address=bridge.max_connections_per_address,
    )


def tickets_of(settings: TicketSettings) -> Tickets | None:
    """What verifies tickets, or None where no key is set."""
    if not settings.are_asked_for:
        return None
    keys = None
    if settings.jwks_url is not None:
        keys = KeySet(key_set_of_url(settings.jwks_url))
    elif settings.jwks_file is not None:
        keys = KeySet(key_set_of_file(settings.jwks_file))
    return Tickets(
        secret=settings.hs256_key,
        keys=keys,
        issuer=settings.issuer,
        audience=settings.audience,
        max_seconds=settings.max_seconds,
    )
