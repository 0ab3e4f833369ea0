"""The server: WebSockets at /ws, server-sent events at /events and the page at /, on one port. A shell over the hub."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Coroutine, Sequence
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, cast

import structlog
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from websocket_bridge.access import Access, PublicAddressError, is_loopback
from websocket_bridge.assets import load_assets, text_response
from websocket_bridge.closing import Close
from websocket_bridge.commands import Authenticate, Refresh
from websocket_bridge.connection import BridgeConnection
from websocket_bridge.event_stream import close_event, command_for, resume_for, stream_head
from websocket_bridge.hub import Hub
from websocket_bridge.messages import SUBPROTOCOL
from websocket_bridge.metrics import BridgeMetrics
from websocket_bridge.reception import WEBSOCKET_PATH, Reception
from websocket_bridge.roster import Client
from websocket_bridge.session import MAX_COMMAND_BYTES
from websocket_bridge.tickets import TicketError, Tickets, TicketsUnavailableError
from websocket_bridge.viewer import Viewer

__all__ = ["WEBSOCKET_PATH", "BridgeServer"]

PING_INTERVAL_SECONDS = 25
PING_TIMEOUT_SECONDS = 20
CLOSE_TIMEOUT_SECONDS = 3
SWEEP_INTERVAL_SECONDS = 2
CONNECTIONS_PER_TURN = 250
"""Swept at once. Thousands that came together are asked, and told their position, together: that took half a second."""
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
        tickets: Tickets | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if tickets is None:
            if not is_loopback(host) and not insecure_public:
                raise PublicAddressError(host)
            who = "everybody who reaches it" if not is_loopback(host) else "this machine alone"
            log.warning("bridge_has_no_ticket_keys", serves=who, host=host, remedy="set bridge.tickets")
        self._hub = hub
        self._metrics = metrics
        self._host = host
        self._port = port
        self._tickets = tickets
        self._tls = tls
        self._scheme = "http" if tls is None else "https"
        access = Access(host=host, allowed_origins=allowed_origins, scheme=self._scheme)
        self._reception = Reception(access, load_assets(), tickets)
        self._open: set[BridgeConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: Server | None = None
        self._frames_sent = 0
        self._opened = 0

    @property
    def connections(self) -> tuple[int, int]:
        """How many there ever were, requests for the page among them, and how many of the view are open."""
        return self._opened, len(self._open)

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
        return f"{self._scheme}://{host}:{self.port}/"

    async def __aenter__(self) -> Self:
        quiet = logging.getLogger(f"{__name__}.websockets")
        quiet.setLevel(logging.WARNING)  # it logs two lines for each connection otherwise
        options: dict[str, Any] = {}
        if self._tls is not None:
            options = {"ssl": self._tls, "ssl_handshake_timeout": 5, "ssl_shutdown_timeout": CLOSE_TIMEOUT_SECONDS}
        self._server = await serve(
            self._talk,
            self._host,
            self._port,
            create_connection=cast("type[ServerConnection]", self._connection),
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,  # it costs more memory per connection than all the rest
            process_request=self._reception.receive,
            server_header=None,
            open_timeout=None,  # the connection has its own: a stream of events ends its handshake with its life
            ping_interval=None,  # a task per connection; `_sweep` does it for all
            close_timeout=CLOSE_TIMEOUT_SECONDS,
            max_size=MAX_COMMAND_BYTES,
            max_queue=RECEIVED_FRAMES,
            logger=quiet,
            **options,
        )
        loop = asyncio.get_running_loop()
        self._hub.on_dirty = partial(loop.call_soon, self._hub.flush)
        self._start(self._sweep_for_ever())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is None:
            return
        for connection in tuple(self._open):
            if connection.streams:
                self.end(connection, Close.GOING_AWAY)
        self._server.close(code=Close.GOING_AWAY.code, reason=Close.GOING_AWAY.text)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                await self._server.wait_closed()
        except TimeoutError:
            # A client that does not read holds its closing handshake back, and so would hold us.
            for left in (*self._server.all_connections, *self._open):
                left.transport.abort()
            await self._server.wait_closed()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def open_stream(self, connection: BridgeConnection, request: Request) -> Response | None:
        """Begins server-sent events, or says why not."""
        asked = await self._reception.stream(request)
        if isinstance(asked, Response):
            return asked
        viewer = asked.viewer or self._hub.default_viewer
        if viewer is None:
            return text_response(HTTPStatus.UNAUTHORIZED, "A ticket is needed: Authorization: Bearer ...")
        refused_field = next(filter(None, map(viewer.refused_field, asked.subscriptions)), None)
        if refused_field is not None:
            return text_response(HTTPStatus.FORBIDDEN, f"{refused_field}: is outside of what this ticket may follow.")
        refused = self._hub.roster.refusal(address=connection.address, viewer=asked.viewer)
        if refused is not None:
            full = refused is Close.FULL
            status = HTTPStatus.SERVICE_UNAVAILABLE if full else HTTPStatus.TOO_MANY_REQUESTS
            return text_response(status, f"{refused.text}.")
        connection.streams = True
        connection.transport.write(stream_head(asked.headers))
        client = self._join(connection, asked.viewer)
        if asked.token is not None:
            self._hub.receive(client, resume_for(asked.token, asked.subscriptions))
        else:
            for subscription in asked.subscriptions:
                self._hub.receive(client, command_for(subscription))
        connection.connection_lost_waiter.add_done_callback(lambda _: self._leave(connection, client))
        return None

    def end(self, connection: BridgeConnection, reason: Close) -> None:
        """Closes a connection, in its own time."""
        self._metrics.closes.labels(str(reason.code)).inc()
        log.info("bridge_closes_client", code=reason.code, reason=reason.text)
        if connection.streams:
            if not connection.transport.is_closing():
                connection.transport.write(close_event(reason))
                connection.transport.close()
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_SECONDS, connection.transport.abort)
        else:
            self._start(self._close(connection, reason))

    def count_sent(self, frames: int) -> None:
        self._frames_sent += frames

    def _connection(self, *args: Any, **options: Any) -> ServerConnection:
        self._opened += 1
        return BridgeConnection(self, *args, **options)

    async def _talk(self, connection: ServerConnection) -> None:
        if not isinstance(connection, BridgeConnection):
            raise TypeError(connection)
        viewer = connection.viewer
        refused = self._hub.roster.refusal(address=connection.address, viewer=viewer)
        if refused is not None:
            self._metrics.closes.labels(str(refused.code)).inc()
            await connection.close(refused.code, refused.text)
            return
        client = self._join(connection, viewer)
        try:
            async for message in connection:
                await self._carry_out(connection, client, message)
        except ConnectionClosed:
            pass
        finally:
            self._leave(connection, client)

    async def _carry_out(self, connection: BridgeConnection, client: Client, message: str | bytes) -> None:
        rate = self._hub.limits.commands_per_second
        delay_seconds = connection.pace.delay_seconds(rate=rate, now=connection.loop.time())
        if delay_seconds > 0:
            await asyncio.sleep(delay_seconds)
        if not connection.is_open:
            return  # what was read ahead is for nobody now
        command = self._hub.receive(client, message)
        if command is not None:
            self._hub.admit(client, command, await self._verdict(command))
        while self._hub.owes(client) and not client.is_ending and connection.is_open:
            await connection.settled()

    async def _verdict(self, command: Authenticate | Refresh) -> Viewer | str | None:
        if self._tickets is None:
            return self._hub.default_viewer or "this bridge takes no tickets"
        try:
            return await self._tickets.verify(command.ticket)
        except TicketError as error:
            return error.reason
        except TicketsUnavailableError:
            return None

    def _join(self, connection: BridgeConnection, viewer: Viewer | None) -> Client:
        self._open.add(connection)
        client = self._hub.join(connection, address=connection.address, viewer=viewer)
        connection.client = client
        connection.flush()
        return client

    def _leave(self, connection: BridgeConnection, client: Client) -> None:
        self._open.discard(connection)
        self._hub.leave(client)

    async def _sweep_for_ever(self) -> None:
        while True:
            connections = tuple(self._open)
            starts = range(0, max(1, len(connections)), CONNECTIONS_PER_TURN)
            for start in starts:
                await asyncio.sleep(SWEEP_INTERVAL_SECONDS / len(starts))
                self._sweep(connections[start : start + CONNECTIONS_PER_TURN])
            self._metrics.frames_sent.inc(self._frames_sent)
            self._frames_sent = 0

    def _sweep(self, connections: Sequence[BridgeConnection]) -> None:
        self._hub.sweep([connection.client for connection in connections if connection.client is not None])
        now = asyncio.get_running_loop().time()
        for connection in connections:
            if connection not in self._open:
                continue  # it has left since
            if connection.is_silent(now, PING_INTERVAL_SECONDS + PING_TIMEOUT_SECONDS):
                self.end(connection, Close.UNRESPONSIVE)
            elif now - max(connection.last_asked, connection.last_heard) >= PING_INTERVAL_SECONDS:
                connection.ask()

    async def _close(self, connection: BridgeConnection, reason: Close) -> None:
        try:
            with contextlib.suppress(ConnectionClosed, TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                    await connection.close(reason.code, reason.text)
        finally:
            connection.transport.abort()  # no more than a formality where the client has answered

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
