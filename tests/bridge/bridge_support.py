"""What the bridge's tests share: events, a hub with bounds of their choice, a server on a free port, a client."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from playwright.async_api import Page
from prometheus_client import CollectorRegistry
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from schemas.delta import Delta
from schemas.status import StatusEvent
from schemas.vocabulary import State
from websocket_bridge.bridge import Bridge
from websocket_bridge.closing import Close
from websocket_bridge.frames import SUBPROTOCOL
from websocket_bridge.hub import Client, Hub, HubLimits
from websocket_bridge.metrics import BridgeMetrics
from websocket_bridge.server import WEBSOCKET_PATH, BridgeServer
from websocket_bridge.session import SessionLimits

SUBMITTED_AT = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
WAIT_SECONDS = 10


def status_event(request_id: str, state: State = State.QUEUED, version: int = 1, **fields: Any) -> StatusEvent:
    times = {"occurred_at": SUBMITTED_AT + timedelta(seconds=version), "submitted_at": SUBMITTED_AT}
    return StatusEvent(
        type=state.event_type, request_id=request_id, state=state, state_version=version, **(times | fields)
    )


def delta(request_id: str, seq: int, text: str, *, attempt: int = 1) -> Delta:
    return Delta(request_id=request_id, attempt=attempt, seq=seq, text=text)


@dataclass(frozen=True, kw_only=True)
class HubOptions:
    """Bounds of a test's hub; roomy unless told."""

    allow_all: bool = True
    max_subscriptions: int = 1000
    max_connections: int = 100
    remembered_requests: int = 1000
    outbox_events: int = 1000
    outbox_bytes: int = 4 * 1024 * 1024


def make_hub(options: HubOptions | None = None) -> tuple[Hub, BridgeMetrics, CollectorRegistry]:
    options = options or HubOptions()
    registry = CollectorRegistry()
    metrics = BridgeMetrics(registry)
    limits = HubLimits(
        session=SessionLimits(max_subscriptions=options.max_subscriptions, allow_all=options.allow_all),
        max_connections=options.max_connections,
        remembered_requests=options.remembered_requests,
        outbox_events=options.outbox_events,
        outbox_bytes=options.outbox_bytes,
    )
    return Hub(limits, metrics), metrics, registry


class Listener:
    """A client of the hub without a network. It reads only when told to."""

    def __init__(self, hub: Hub) -> None:
        self.closed_with: Close | None = None
        self.wakes = 0
        self._hub = hub
        self._next_id = 0
        self.client: Client = hub.join(wake=self._wake, close=self._close)

    def command(self, kind: str, **fields: Any) -> None:
        self._next_id += 1
        self._hub.receive(self.client, json.dumps({"id": self._next_id, "type": kind, **fields}))

    def read(self) -> list[dict[str, Any]]:
        """Everything that waits, parsed."""
        frames = []
        while (frame := self.client.outbox.take()) is not None:
            if isinstance(frame, Close):
                self.closed_with = frame
            else:
                frames.append(json.loads(frame.data))
        return frames

    def _wake(self) -> None:
        self.wakes += 1

    def _close(self, reason: Close) -> None:
        self.closed_with = reason


@contextlib.asynccontextmanager
async def serving(hub: Hub, metrics: BridgeMetrics, **options: Any) -> AsyncIterator[BridgeServer]:
    defaults: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "allowed_origins": []}
    async with BridgeServer(hub, metrics, **(defaults | options)) as server:
        yield server


class WireClient:
    """A real WebSocket client: pushes and answers as dictionaries."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._next_id = 0
        self._pushes: list[dict[str, Any]] = []
        self.feed = "untold"

    async def command(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Sends a command and returns its answer; pushes that come before it are kept."""
        self._next_id += 1
        await self.connection.send(json.dumps({"id": self._next_id, "type": kind, **fields}))
        while True:
            message = await self._receive()
            if message.get("id") == self._next_id:
                return message
            self._pushes.append(message)

    async def push(self, kind: str, *, seconds: float = WAIT_SECONDS) -> dict[str, Any]:
        """The next push of this type; others before it are passed over."""
        while True:
            message = self._pushes.pop(0) if self._pushes else await self._receive(seconds)
            self.feed = message.get("feed", self.feed)
            if message["type"] == kind:
                return message

    async def _receive(self, seconds: float = WAIT_SECONDS) -> dict[str, Any]:
        async with asyncio.timeout(seconds):
            return json.loads(await self.connection.recv())


@contextlib.asynccontextmanager
async def connected(server: BridgeServer | Bridge, **options: Any) -> AsyncIterator[WireClient]:
    url = server.url.replace("http://", "ws://").rstrip("/") + WEBSOCKET_PATH
    async with connect(url, subprotocols=[SUBPROTOCOL], proxy=None, **options) as connection:
        yield WireClient(connection)


async def closing(connection: ClientConnection) -> tuple[int, str]:
    """Reads to the end, and returns the code and the reason that the bridge closed with."""
    async with asyncio.timeout(WAIT_SECONDS):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await connection.recv()
    return connection.close_code or 0, connection.close_reason or ""


@dataclass
class Watched:
    """A browser's page, and what it did that a test may want to know of."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)


async def until(condition: Callable[[], bool], *, what: str, seconds: float = WAIT_SECONDS) -> None:
    """Waits for a condition, and says which one did not come."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"did not come within {seconds} s: {what}") from None
