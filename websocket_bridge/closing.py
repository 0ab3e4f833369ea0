"""Why the bridge closes a connection, and whether the client should come back.

1000 to 1013 are used as RFC 6455 and IANA have them. Of ours, 4400 to 4499 say "do not reconnect", and 4500 to 4599
"reconnect": a client that meets one it does not know can go by that.
"""

from enum import Enum
from typing import NamedTuple


class _Reason(NamedTuple):
    code: int
    text: str
    reconnect: bool


class Close(_Reason, Enum):
    """Every way in which the bridge ends a connection. `text` goes into the close frame (at most 123 bytes)."""

    GOING_AWAY = 1001, "the bridge is shutting down", True
    NOT_TEXT = 1003, "commands are text frames of JSON", False
    TOO_BIG = 1009, "the frame is larger than the bridge accepts", False
    UNRESPONSIVE = 1011, "the client answers no pings", True
    FULL = 1013, "the bridge has as many connections as it takes", True
    INVALID_COMMANDS = 4400, "too many refused commands in a row", False
    NOT_AUTHENTICATED = 4401, "no valid ticket came in time", False
    IDLE = 4408, "the connection follows nothing", False
    TOO_MANY_OF_ONE = 4429, "too many connections of this user or address", False
    SLOW_CLIENT = 4500, "the client reads too slowly", True
    TICKET_EXPIRED = 4501, "the ticket expired: come back with a new one", True
