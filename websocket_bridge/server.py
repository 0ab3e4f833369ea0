"""The server: WebSockets at /ws and the page at /, on one port. A thin shell over the hub."""

import asyncio
import logging
from http import HTTPStatus
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import structlog
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from websocket_bridge.access import Access, PublicAddressError, is_loopback
from websocket_bridge.assets import asset_response, load_assets, text_response
from websocket_bridge.closing import Close
from websocket_bridge.frames import SUBPROTOCOL
from websocket_bridge.hub import Client, Hub
from websocket_bridge.metrics import BridgeMetrics
from websocket_bridge.session import MAX_COMMAND_BYTES

WEBSOCKET_PATH = "/ws"
OPEN_TIMEOUT_SECONDS = 5
PING_INTERVAL_SECONDS = 25
PING_TIMEOUT_SECONDS = 20
CLOSE_TIMEOUT_SECONDS = 3
RECEIVED_FRAMES = 4
"""Frames read ahead of the session. With `MAX_COMMAND_BYTES` it bounds what one client makes us hold."""

log = structlog.get_logger(__name__)


class BridgeServer:
    """An asynchronous context manager: serves from entry to exit, and closes its clients with 1001 on exit."""

    def __init__(
        self,
        hub: Hub,
        metrics: BridgeMetrics,
        *,
        host: str,
        port: int,
        allowed_origins: list[str],
        insecure_public: bool = False,
    ) -> None:
        if not is_loopback(host):
            if not insecure_public:
                raise PublicAddressError(host)
            log.warning("bridge_is_public", host=host, remedy="there is no authentication: keep strangers away")
        self._hub = hub
        self._metrics = metrics
        self._host = host
        self._port = port
        self._access = Access(host=host, allowed_origins=allowed_origins)
        self._assets = load_assets()
        self._closing: set[asyncio.Task[None]] = set()
        self._server: Server | None = None

    @property
    def is_serving(self) -> bool:
        return self._server is not None and self._server.is_serving()

    @property
    def port(self) -> int:
        """The port in use, once serving: with port 0 the system chose it."""
        if self._server is None:
            raise RuntimeError("the bridge does not serve yet")
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """Where the page is."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}/"

    async def __aenter__(self) -> Self:
        quiet = logging.getLogger(f"{__name__}.websockets")
        quiet.setLevel(logging.WARNING)  # it logs two lines for each connection otherwise
        self._server = await serve(
            self._talk,
            self._host,
            self._port,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,  # it costs more memory per connection than all the rest
            process_request=self._process_request,
            server_header=None,
            open_timeout=OPEN_TIMEOUT_SECONDS,
            ping_interval=PING_INTERVAL_SECONDS,
            ping_timeout=PING_TIMEOUT_SECONDS,
            close_timeout=CLOSE_TIMEOUT_SECONDS,
            max_size=MAX_COMMAND_BYTES,
            max_queue=RECEIVED_FRAMES,
            logger=quiet,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is None:
            return
        self._server.close(code=Close.GOING_AWAY.code, reason=Close.GOING_AWAY.text)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                await self._server.wait_closed()
        except TimeoutError:
            # A client that does not read holds its closing handshake back, and so would hold us.
            for connection in tuple(self._server.all_connections):
                connection.transport.abort()
            await self._server.wait_closed()

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:  # noqa: ARG002
        hosts = request.headers.get_all("Host")
        if len(hosts) != 1 or not self._access.allows_host(hosts[0]):
            return text_response(
                HTTPStatus.MISDIRECTED_REQUEST,
                "This bridge does not serve that host name. Add the page's address to bridge.allowed_origins.",
            )
        if request.method not in {"GET", "HEAD"}:
            return text_response(HTTPStatus.METHOD_NOT_ALLOWED, "GET or HEAD only.", Allow="GET, HEAD")
        path = urlsplit(request.path).path
        if path == WEBSOCKET_PATH:
            return self._refused_origin(request, hosts[0])
        asset = self._assets.get(path)
        if asset is None:
            return text_response(
                HTTPStatus.NOT_FOUND, f"Nothing here. The page is at /, WebSockets are at {WEBSOCKET_PATH}."
            )
        if_none_match = next(iter(request.headers.get_all("If-None-Match")), None)
        return asset_response(asset, if_none_match=if_none_match, with_body=request.method == "GET")

    def _refused_origin(self, request: Request, host_header: str) -> Response | None:
        origins = request.headers.get_all("Origin")
        origin = origins[0] if origins else None
        if len(origins) <= 1 and self._access.allows_origin(origin, host_header=host_header):
            return None
        return text_response(HTTPStatus.FORBIDDEN, "This Origin may not connect. See bridge.allowed_origins.")

    async def _talk(self, websocket: ServerConnection) -> None:
        if self._hub.is_full:
            await self._close(websocket, Close.FULL)
            return
        wake, replied = asyncio.Event(), asyncio.Event()
        client = self._hub.join(wake=wake.set, close=lambda reason: self._close_soon(websocket, reason))
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(self._write(websocket, client, wake, replied))
                await self._read(websocket, client, replied)
                writer.cancel()
        finally:
            self._hub.leave(client)

    async def _read(self, websocket: ServerConnection, client: Client, replied: asyncio.Event) -> None:
        try:
            async for message in websocket:
                replied.clear()
                self._hub.receive(client, message)
                if client.outbox.owes_replies:
                    await replied.wait()
        except ConnectionClosed:
            pass

    async def _write(
        self, websocket: ServerConnection, client: Client, wake: asyncio.Event, replied: asyncio.Event
    ) -> None:
        try:
            while True:
                await wake.wait()
                wake.clear()
                while (frame := client.outbox.take()) is not None:
                    if isinstance(frame, Close):
                        await self._close(websocket, frame)
                        return
                    await websocket.send(frame.data, text=True)
                    self._metrics.frames_sent.inc()
                    if not client.outbox.owes_replies:
                        replied.set()
        except ConnectionClosed:
            pass  # the reader sees it as well, and leaves the hub
        finally:
            replied.set()

    def _close_soon(self, websocket: ServerConnection, reason: Close) -> None:
        task = asyncio.create_task(self._close(websocket, reason))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(self, websocket: ServerConnection, reason: Close) -> None:
        self._metrics.closes.labels(str(reason.code)).inc()
        log.info("bridge_closes_client", code=reason.code, reason=reason.text)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                await websocket.close(reason.code, reason.text)
        except TimeoutError:
            websocket.transport.abort()
