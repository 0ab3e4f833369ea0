"""What every role serves to its operators: /metrics, /healthz (it lives) and /readyz (it works)."""

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest

from connectors.settings import OpsSettings

log = structlog.get_logger(__name__)

Check = Callable[[], bool]


@dataclass(kw_only=True)
class Readiness:
    """Named conditions that must all hold before a role counts as ready."""

    checks: dict[str, Check] = field(default_factory=dict)

    def failing(self) -> list[str]:
        return [name for name, holds in self.checks.items() if not holds()]


class OpsServer:
    """A small HTTP server beside the role. `port` is known once it is started."""

    def __init__(
        self, settings: OpsSettings, readiness: Readiness, *, role: str, registry: CollectorRegistry = REGISTRY
    ) -> None:
        self._settings = settings
        self._readiness = readiness
        self._role = role
        self._registry = registry
        self._runner: web.AppRunner | None = None
        self.port = settings.port

    async def start(self) -> None:
        app = web.Application(client_max_size=1024)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._settings.host, self._settings.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        log.info("ops_listening", host=self._settings.host, port=self.port)

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "role": self._role})

    async def _readyz(self, _request: web.Request) -> web.Response:
        failing = self._readiness.failing()
        return web.json_response(
            {"status": "waiting" if failing else "ready", "role": self._role, "waiting_for": failing},
            status=503 if failing else 200,
        )
