"""Who gets what: every client with its session and outbox, and the index from requests to those who follow them.

No I/O of its own. The server gives each client two callables, `wake` (there is something to send) and `close`; both
only schedule, so that one client's troubles never reach another.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from schemas.delta import Delta
from schemas.status import StatusEvent
from websocket_bridge.board import Board
from websocket_bridge.closing import Close
from websocket_bridge.frames import FeedState, Frame, feed_notice, hello
from websocket_bridge.metrics import BridgeMetrics
from websocket_bridge.outbox import Outbox
from websocket_bridge.session import MAX_COMMAND_BYTES, Session, SessionLimits
from websocket_bridge.transcripts import Transcripts

DEFAULT_OUTBOX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class HubLimits:
    """Bounds of the hub as a whole and of each client."""

    session: SessionLimits
    max_connections: int
    remembered_requests: int
    outbox_events: int
    outbox_bytes: int = DEFAULT_OUTBOX_BYTES


@dataclass(eq=False, slots=True)
class Client:
    """One connection. `is_ending`: it is being closed, and takes nothing more."""

    session: Session
    outbox: Outbox
    wake: Callable[[], None]
    close: Callable[[Close], None]
    is_ending: bool = field(default=False)


class Hub:
    """Takes events and commands, and fills outboxes."""

    def __init__(
        self, limits: HubLimits, metrics: BridgeMetrics, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._limits = limits
        self._metrics = metrics
        self._now = now
        self._board = Board(limits.remembered_requests)
        self._transcripts = Transcripts()
        self._clients: set[Client] = set()
        self._follow_all: set[Client] = set()
        self._by_request: dict[str, set[Client]] = {}
        self._feed = FeedState.STARTING
        metrics.watch_requests(lambda: self._board.counts)

    @property
    def is_full(self) -> bool:
        return len(self._clients) >= self._limits.max_connections

    @property
    def feed(self) -> FeedState:
        return self._feed

    def join(self, *, wake: Callable[[], None], close: Callable[[Close], None]) -> Client:
        """A new client, with a greeting in its outbox."""
        session = Session(board=self._board, transcripts=self._transcripts, limits=self._limits.session)
        outbox = Outbox(max_events=self._limits.outbox_events, max_bytes=self._limits.outbox_bytes)
        client = Client(session, outbox, wake, close)
        self._clients.add(client)
        self._metrics.accepted.inc()
        self._metrics.connections.set(len(self._clients))
        self._push(client, (hello(self._now(), self._feed, self._announced_limits()),))
        return client

    def leave(self, client: Client) -> None:
        """Forgets a client. Nothing of it stays."""
        client.is_ending = True
        client.outbox.clear()
        self._clients.discard(client)
        self._follow_all.discard(client)
        self._unfollow(client, client.session.request_ids)
        self._metrics.connections.set(len(self._clients))

    def receive(self, client: Client, message: str | bytes) -> None:
        """A command of a client."""
        if client.is_ending:
            return
        turn = client.session.receive(message)
        for request_id in turn.followed:
            self._by_request.setdefault(request_id, set()).add(client)
        self._unfollow(client, turn.unfollowed)
        if client.session.follows_all:
            self._follow_all.add(client)
        else:
            self._follow_all.discard(client)
        self._push(client, turn.frames)

    def on_status(self, event: StatusEvent) -> bool:
        """Tells a change of state to those who follow it. False for one that says nothing new."""
        status = self._board.apply(event)
        if status is None:
            return False
        for client in self._audience(status.request_id):
            self._push(client, client.session.on_status(status))
        return True

    def on_delta(self, delta: Delta) -> bool:
        """Tells a piece of an answer to those who want it. False for a superseded or repeated one."""
        run = self._transcripts.apply(delta)
        if run is None:
            return False
        for client in self._audience(run.request_id):
            self._push(client, client.session.on_delta(run))
        return True

    def on_feed(self, feed: FeedState) -> None:
        """Tells everybody that the bridge's own view of Kafka changed."""
        if feed is self._feed:
            return
        self._feed = feed
        notice = feed_notice(feed)
        for client in tuple(self._clients):
            self._push(client, (notice,))

    def _audience(self, request_id: str) -> tuple[Client, ...]:
        followers = self._by_request.get(request_id)
        if followers is None:
            return tuple(self._follow_all)
        return tuple(followers | self._follow_all)

    def _push(self, client: Client, frames: Iterable[Frame]) -> None:
        if client.is_ending:
            return
        for frame in frames:
            compaction = client.outbox.put(frame)
            if isinstance(frame, Close):
                client.is_ending = True
            if compaction is None:
                continue
            self._metrics.statuses_compacted.inc(compaction.statuses_dropped)
            self._metrics.deltas_joined.inc(compaction.deltas_joined)
            if not compaction.fits:
                self.leave(client)
                client.close(Close.SLOW_CLIENT)
                return
        client.wake()

    def _unfollow(self, client: Client, request_ids: Iterable[str]) -> None:
        for request_id in request_ids:
            followers = self._by_request.get(request_id)
            if followers is not None:
                followers.discard(client)
                if not followers:
                    del self._by_request[request_id]

    def _announced_limits(self) -> dict[str, int | bool]:
        session = self._limits.session
        return {
            "all": session.allow_all,
            "subscriptions": session.max_subscriptions,
            "command_bytes": MAX_COMMAND_BYTES,
        }
