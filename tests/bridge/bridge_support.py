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
from pydantic import TypeAdapter
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from schemas.delta import Delta
from schemas.status import StatusEvent
from schemas.vocabulary import State
from websocket_bridge.bridge import Bridge
from websocket_bridge.closing import Close
from websocket_bridge.hub import Hub
from websocket_bridge.messages import SUBPROTOCOL, Answer, Push, Scope
from websocket_bridge.metrics import BridgeMetrics
from websocket_bridge.position import Place
from websocket_bridge.recent import Spot
from websocket_bridge.roster import Client, HubLimits
from websocket_bridge.server import WEBSOCKET_PATH, BridgeServer
from websocket_bridge.session import SessionLimits
from websocket_bridge.viewer import Viewer

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
    more: dict[str, Any] = field(default_factory=dict)
    """Other fields of `HubLimits`."""


ANSWERS: TypeAdapter[Any] = TypeAdapter(Answer)
PUSHES: TypeAdapter[Any] = TypeAdapter(Push)

OPERATOR = Viewer(scope=Scope.OPERATOR)
BY_ID = Viewer(scope=Scope.IDS)


@dataclass
class Clock:
    """Time that a test moves by hand."""

    seconds: float = 1_000.0

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return SUBMITTED_AT + timedelta(seconds=self.seconds)


@dataclass
class ShiftedClock(Clock):
    """The world's clock, moved on by hand: for tickets, which are verified by the world's."""

    seconds: float = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.seconds)


def make_hub(
    options: HubOptions | None = None, *, asks_for_tickets: bool = False, clock: Clock | None = None
) -> tuple[Hub, BridgeMetrics, CollectorRegistry]:
    options = options or HubOptions()
    registry = CollectorRegistry()
    metrics = BridgeMetrics(registry)
    limits = HubLimits(
        session=SessionLimits(max_subscriptions=options.max_subscriptions),
        max_connections=options.max_connections,
        remembered_requests=options.remembered_requests,
        outbox_events=options.outbox_events,
        outbox_bytes=options.outbox_bytes,
        **options.more,
    )
    anybody = OPERATOR if options.allow_all else BY_ID
    times: dict[str, Any] = {} if clock is None else {"clock": clock, "now": clock.now}
    hub = Hub(limits, metrics, default_viewer=None if asks_for_tickets else anybody, **times)
    return hub, metrics, registry


class Kafka:
    """Gives records their places, one partition a topic, as Kafka would."""

    EPOCH = b"epoch."

    def __init__(self, begin: int = 100) -> None:
        self.next: dict[Place, int] = {(topic, 0): begin for topic in range(3)}

    def begin(self, hub: Hub) -> None:
        hub.begin(self.EPOCH, self.next)

    def spot(self, topic: int) -> Spot:
        offset = self.next[topic, 0]
        self.next[topic, 0] = offset + 1
        return Spot((topic, 0), offset)


class Listener:
    """A client of the hub without a network. It reads only when told to."""

    def __init__(self, hub: Hub, *, viewer: Viewer | None = None, address: str = "") -> None:
        self.closed_with: Close | None = None
        self.token: str | None = None
        self._hub = hub
        self._next_id = 0
        self.client: Client = hub.join(self, viewer=viewer, address=address)

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
                (ANSWERS if "id" in frames[-1] else PUSHES).validate_python(frames[-1])
                self.token = frames[-1].get("resume", self.token)
        return frames

    def flush(self) -> None:
        """Nothing is sent by itself."""

    def end(self, reason: Close) -> None:
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
