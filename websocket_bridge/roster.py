"""Who is connected: the clients, how many of them are whose, and the index from subjects to those who follow them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from websocket_bridge.closing import Close
from websocket_bridge.outbox import Outbox
from websocket_bridge.session import Session, SessionLimits
from websocket_bridge.subjects import Options, Subject
from websocket_bridge.viewer import Viewer

DEFAULT_OUTBOX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class HubLimits:
    """Bounds of the hub as a whole and of each client. Times in seconds; 0 for the last three means no bound."""

    session: SessionLimits
    max_connections: int
    remembered_requests: int
    outbox_events: int
    outbox_bytes: int = DEFAULT_OUTBOX_BYTES
    replay_bytes: int = 64 * 1024 * 1024
    resume_events: int = 10_000
    commands_per_second: float = 50.0
    position_seconds: float = 20.0
    authenticate_seconds: float = 10.0
    idle_seconds: float = 0.0
    max_connections_per_user: int = 0
    max_connections_per_address: int = 0


class Peer(Protocol):
    """The network's side of a client. Both only schedule or do what can be done at once, and never raise."""

    def flush(self) -> None:
        """Sends what the network takes now."""

    def end(self, reason: Close) -> None:
        """Closes the connection."""


@dataclass(eq=False, slots=True)
class Client:
    """One connection. `is_ending`: it is being closed, and takes nothing more."""

    session: Session
    outbox: Outbox
    peer: Peer
    address: str
    idle_since: float
    token_at: float
    is_ending: bool = False
    is_dirty: bool = False


_NOBODY: Mapping["Client", Options] = MappingProxyType({})


class Roster:
    """All clients. What is counted or indexed goes with the client."""

    def __init__(self, limits: HubLimits) -> None:
        self._limits = limits
        self._clients: dict[Client, None] = {}
        self._followers: dict[Subject, dict[Client, Options]] = {}
        self._users: dict[tuple[str | None, str], int] = {}
        self._addresses: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[Client]:
        return iter(tuple(self._clients))

    def __contains__(self, client: Client) -> bool:
        return client in self._clients

    @property
    def is_blank(self) -> bool:
        """Whether nothing is left of anybody."""
        return not (self._clients or self._followers or self._users or self._addresses)

    def refusal(self, *, address: str, viewer: Viewer | None) -> Close | None:
        """Why one more connection of this address and viewer is not taken, if it is not."""
        limits = self._limits
        if len(self._clients) >= limits.max_connections:
            return Close.FULL
        if 0 < limits.max_connections_per_address <= self._addresses.get(address, 0):
            return Close.TOO_MANY_OF_ONE
        return self.too_many_of(viewer)

    def too_many_of(self, viewer: Viewer | None) -> Close | None:
        """Whether a user has as many connections as it may."""
        if viewer is None or viewer.user_id is None or not self._limits.max_connections_per_user:
            return None
        count = self._users.get((viewer.tenant_id, viewer.user_id), 0)
        return Close.TOO_MANY_OF_ONE if count >= self._limits.max_connections_per_user else None

    def add(self, client: Client) -> None:
        self._clients[client] = None
        self._addresses[client.address] = self._addresses.get(client.address, 0) + 1
        self._count(client.session.viewer, 1)

    def remove(self, client: Client) -> None:
        del self._clients[client]
        self.unfollow(client, tuple(client.session.followed))
        self._addresses[client.address] -= 1
        if not self._addresses[client.address]:
            del self._addresses[client.address]
        self._count(client.session.viewer, -1)

    def count_as(self, before: Viewer | None, after: Viewer | None) -> None:
        """A client that was counted as one viewer is another now."""
        self._count(before, -1)
        self._count(after, 1)

    def follow(self, client: Client, subjects: Iterable[Subject]) -> None:
        """With the options that its session has for them."""
        for subject in subjects:
            options = client.session.followed.get(subject)
            if options is not None:
                self._followers.setdefault(subject, {})[client] = options

    def unfollow(self, client: Client, subjects: Iterable[Subject]) -> None:
        for subject in subjects:
            followers = self._followers.get(subject)
            if followers is not None:
                followers.pop(client, None)
                if not followers:
                    del self._followers[subject]

    @property
    def followed_requests(self) -> Iterator[str]:
        """Ids of the requests that somebody follows by id."""
        return (subject.value for subject in self._followers if subject.kind == "request")

    def followers(self, subject: Subject) -> Mapping[Client, Options]:
        """Those who follow a subject. Not to be held while somebody may leave."""
        return self._followers.get(subject, _NOBODY)

    def _count(self, viewer: Viewer | None, step: int) -> None:
        if viewer is None or viewer.user_id is None:
            return
        key = (viewer.tenant_id, viewer.user_id)
        self._users[key] = self._users.get(key, 0) + step
        if not self._users[key]:
            del self._users[key]
