"""A client's connection, as the hub sees it: takes frames from the outbox as fast as the network takes them.

There is no task and no queue per connection for sending. Frames are written where they come up, as long as the
transport's buffer is below its mark; above it they stay in the outbox until the transport asks for more.
"""

import asyncio
from typing import Any, Protocol

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response
from websockets.protocol import State

from websocket_bridge.closing import Close
from websocket_bridge.frames import Frame, Snapshot
from websocket_bridge.pace import Pace
from websocket_bridge.roster import Client
from websocket_bridge.viewer import Viewer

EVENTS_PATH = "/events"
OPEN_TIMEOUT_SECONDS = 5
BYTES_PER_WRITE = 64 * 1024


class Host(Protocol):
    """What a connection needs of the server."""

    async def open_stream(self, connection: "BridgeConnection", request: Request) -> Response | None:
        """Begins server-sent events and returns None, or returns why not."""

    def end(self, connection: "BridgeConnection", reason: Close) -> None:
        """Closes a connection, in its own time."""

    def count_sent(self, frames: int) -> None:
        """Frames were written."""


class BridgeConnection(ServerConnection):
    """`client` is there from when the hub took it in. `streams`: it carries server-sent events, no WebSocket."""

    def __init__(self, host: Host, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.host = host
        self.client: Client | None = None
        self.viewer: Viewer | None = None
        self.streams = False
        self.pace = Pace()
        self.last_heard = self.last_asked = self.loop.time()
        self._paused_at: float | None = None
        self._settled: asyncio.Future[None] | None = None

    @property
    def address(self) -> str:
        """The client's host."""
        found = self.remote_address
        return str(found[0]) if found else ""

    def flush(self) -> None:
        """Sends what waits, as far as the network takes it."""
        client = self.client
        if client is None:
            return
        outbox = client.outbox
        while not self.paused and len(outbox) and self.is_open:
            frame = outbox.take()
            wires: list[bytes] = []
            size = 0
            while frame is not None and not isinstance(frame, Close):
                wires.append(event_of(frame) if self.streams else frame.wire)
                size += len(wires[-1])
                frame = outbox.take() if size < BYTES_PER_WRITE else None
            self._write(wires)
            if isinstance(frame, Close):
                self.end(frame)
                return
        self._settle()

    def end(self, reason: Close) -> None:
        self.host.end(self, reason)

    async def handshake(self, *args: Any, **options: Any) -> None:
        """As that of `ServerConnection`, but for the path of server-sent events: there it returns at the end of the
        stream."""
        async with asyncio.timeout(OPEN_TIMEOUT_SECONDS):
            waiters = [self.request_rcvd, self.connection_lost_waiter]
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
            request = self.request
            if request is None or request.path.partition("?")[0] != EVENTS_PATH:
                await super().handshake(*args, **options)
                return
            refused = await self.host.open_stream(self, request)
            if refused is not None:
                await super().handshake(lambda *_: refused, server_header=None)
                return
        await asyncio.shield(self.connection_lost_waiter)

    async def settled(self) -> None:
        """Returns after the next `flush`, or when the connection closes."""
        self._settled = self.loop.create_future()
        try:
            await self._settled
        finally:
            self._settled = None

    def ask(self) -> None:
        """Has the client show that it is there."""
        self.last_asked = self.loop.time()
        if self.streams:
            if self.is_open and not self.paused:
                self.transport.write(b": still here\n\n")
        elif self.is_open:
            self.protocol.send_ping(b"")
            self.send_data()

    def is_silent(self, now: float, seconds: float) -> bool:
        """Whether nothing was heard of the client for so long; of one that only listens, whether it takes nothing."""
        if self.streams:
            return self._paused_at is not None and now - self._paused_at > seconds
        return now - self.last_heard > seconds

    def pause_writing(self) -> None:
        self._paused_at = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._paused_at = None
        super().resume_writing()
        self.flush()

    def data_received(self, data: bytes) -> None:
        self.last_heard = self.loop.time()
        super().data_received(data)
        if not self.is_open:
            self._settle()  # nothing that is owed can be sent any more

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._settle()

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent. A closing handshake that has begun ends that, and so does a write that failed,
        of which the protocol hears later."""
        return (self.protocol.state is State.OPEN or self.streams) and not self.transport.is_closing()

    def _settle(self) -> None:
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)

    def _write(self, wires: list[bytes]) -> None:
        if not wires:
            return
        self.transport.write(wires[0] if len(wires) == 1 else b"".join(wires))
        self.host.count_sent(len(wires))


def event_of(frame: Frame | Snapshot) -> bytes:
    """A frame as a server-sent event."""
    start = b"" if frame.token is None else b"id: " + frame.token.encode() + b"\n"
    return start + b"data: " + frame.data + b"\n\n"
