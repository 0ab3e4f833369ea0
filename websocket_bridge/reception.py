"""What comes before a connection: host, origin, path and ticket are looked at, and the page's files handed out."""

from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from websocket_bridge.access import Access
from websocket_bridge.assets import Asset, asset_response, text_response
from websocket_bridge.commands import Subscription
from websocket_bridge.connection import EVENTS_PATH, BridgeConnection
from websocket_bridge.event_stream import QueryError, subscriptions_of
from websocket_bridge.messages import TICKET_SUBPROTOCOL_PREFIX
from websocket_bridge.tickets import TicketError, Tickets, TicketsUnavailableError
from websocket_bridge.viewer import Viewer

WEBSOCKET_PATH = "/ws"
KEYS_ARE_AWAY = "The keys of tickets cannot be fetched at the moment: try again."


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamRequest:
    """What is asked of a stream of events. `headers` go into the response."""

    subscriptions: list[Subscription]
    viewer: Viewer | None
    token: str | None
    headers: dict[str, str]


class Reception:
    """`tickets` is None where nobody needs one."""

    def __init__(self, access: Access, assets: dict[str, Asset], tickets: Tickets | None) -> None:
        self._access = access
        self._assets = assets
        self._tickets = tickets

    async def receive(self, connection: ServerConnection, request: Request) -> Response | None:
        """The response, or None where a WebSocket may begin."""
        refused = self._refused_host(request)
        if refused is not None:
            return refused
        path = urlsplit(request.path).path
        if path == WEBSOCKET_PATH and request.method == "GET":
            return self._refused_origin(request) or await self._refused_ticket(connection, request)
        if request.method not in {"GET", "HEAD"}:
            return text_response(HTTPStatus.METHOD_NOT_ALLOWED, "GET or HEAD only.", Allow="GET, HEAD")
        asset = self._assets.get(path)
        if asset is None:
            where = f"The page is at /, WebSockets are at {WEBSOCKET_PATH}, server-sent events at {EVENTS_PATH}."
            return text_response(HTTPStatus.NOT_FOUND, f"Nothing here. {where}")
        if_none_match = next(iter(request.headers.get_all("If-None-Match")), None)
        return asset_response(asset, if_none_match=if_none_match, with_body=request.method == "GET")

    async def stream(self, request: Request) -> StreamRequest | Response:
        """What a request for server-sent events asks for, or the response that refuses it."""
        refused = self._refused_host(request) or self._refused_origin(request)
        if refused is not None:
            return refused
        headers = _shared_with(_only(request, "Origin"))
        if request.method == "OPTIONS":
            return text_response(HTTPStatus.OK, "", **headers)
        if request.method != "GET":
            return text_response(HTTPStatus.METHOD_NOT_ALLOWED, "GET only.", Allow="GET, OPTIONS")
        try:
            subscriptions = subscriptions_of(urlsplit(request.path).query)
            viewer = await self._bearer(_only(request, "Authorization"))
        except QueryError as error:
            return text_response(HTTPStatus.BAD_REQUEST, error.reason, **headers)
        except TicketError as error:
            return text_response(HTTPStatus.UNAUTHORIZED, f"The ticket {error.reason}.", **headers)
        except TicketsUnavailableError:
            return text_response(HTTPStatus.SERVICE_UNAVAILABLE, KEYS_ARE_AWAY, **headers)
        token = _only(request, "Last-Event-ID") or None
        return StreamRequest(subscriptions=subscriptions, viewer=viewer, token=token, headers=headers)

    def _refused_host(self, request: Request) -> Response | None:
        host = _only(request, "Host")
        if host is not None and self._access.allows_host(host):
            return None
        return text_response(
            HTTPStatus.MISDIRECTED_REQUEST,
            "This bridge does not serve that host name. Add the page's address to bridge.allowed_origins.",
        )

    def _refused_origin(self, request: Request) -> Response | None:
        origins = request.headers.get_all("Origin")
        host = _only(request, "Host") or ""
        if len(origins) <= 1 and self._access.allows_origin(next(iter(origins), None), host_header=host):
            return None
        return text_response(HTTPStatus.FORBIDDEN, "This Origin may not connect. See bridge.allowed_origins.")

    async def _refused_ticket(self, connection: ServerConnection, request: Request) -> Response | None:
        ticket = _handshake_ticket(request)
        if ticket is None or self._tickets is None or not isinstance(connection, BridgeConnection):
            return None
        try:
            connection.viewer = await self._tickets.verify(ticket)
        except TicketError as error:
            return text_response(HTTPStatus.UNAUTHORIZED, f"The ticket {error.reason}.")
        except TicketsUnavailableError:
            return text_response(HTTPStatus.SERVICE_UNAVAILABLE, KEYS_ARE_AWAY)
        return None

    async def _bearer(self, authorization: str | None) -> Viewer | None:
        if self._tickets is None or authorization is None:
            return None
        kind, _, ticket = authorization.partition(" ")
        if kind.lower() != "bearer":
            raise TicketError("has to come as: Authorization: Bearer ...")
        return await self._tickets.verify(ticket.strip())


def _handshake_ticket(request: Request) -> str | None:
    for line in request.headers.get_all("Sec-WebSocket-Protocol"):
        for word in line.split(","):
            if word.strip().startswith(TICKET_SUBPROTOCOL_PREFIX):
                return word.strip().removeprefix(TICKET_SUBPROTOCOL_PREFIX)
    return None


def _shared_with(origin: str | None) -> dict[str, str]:
    """What lets a page of another, allowed origin read the stream (Fetch Standard, section 3.2)."""
    if origin is None:
        return {}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Headers": "authorization, last-event-id",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "Vary": "Origin",
    }


def _only(request: Request, name: str) -> str | None:
    """A header that may occur once, or None."""
    found = request.headers.get_all(name)
    return found[0] if len(found) == 1 else None
