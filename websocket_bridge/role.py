"""The bridge as a process: its connections, its operators' endpoints, and an orderly end."""

import asyncio

import structlog
from prometheus_client import REGISTRY

from connectors.kafka.client import client_options
from connectors.ops import OpsServer, Readiness
from connectors.schema_registry import open_codec
from connectors.settings import Settings
from connectors.stopping import stop_event
from websocket_bridge.bridge import Bridge
from websocket_bridge.garbage import collect_now_and_then
from websocket_bridge.kafka_log import quieten_kafka_log

log = structlog.get_logger(__name__)


async def run_bridge_role(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT. Returns the exit code."""
    stop = stop_event()
    quieten_kafka_log()
    async with open_codec(settings, []) as codec:
        bridge = Bridge(
            settings,
            codec,
            client_options=client_options(settings),
            registry=REGISTRY,
            insecure_public=settings.bridge.insecure_public,
        )
        ops = OpsServer(settings.ops, Readiness(checks={"caught_up": lambda: bridge.ready}), role="bridge")
        await ops.start()
        collecting = asyncio.create_task(collect_now_and_then(lambda: bridge.connections))
        try:
            await bridge.run(stop, on_serving=lambda url: log.info("bridge_serving", url=url))
        finally:
            collecting.cancel()
            await ops.close()
    return 0
