"""Server-sent events: what an address asks for, and how a stream begins and ends. Pure.

Source: HTML Living Standard, section 9.2 "Server-sent events".
"""

import json
from collections.abc import Mapping
from urllib.parse import parse_qs

from pydantic import ValidationError

from websocket_bridge.assets import SECURITY_HEADERS
from websocket_bridge.closing import Close
from websocket_bridge.commands import Resume, Subscription

STREAM_COMMAND_ID = 0
MAX_QUERY_FIELDS = 50

_LISTS = ("request_ids", "states", "providers", "tenant_ids")
_WORDS = ("correlation_id", "user_id", "tenant_id", "limit")
_FLAGS = ("all", "lanes", "dead_letters", "deltas")
_SELECTIONS = ("request_ids", "correlation_id", "user_id", "tenant_id", "all", "lanes", "dead_letters")


class QueryError(Exception):
    """The address asks for nothing that there is. `.reason` is a line for whoever reads it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def subscriptions_of(query: str) -> list[Subscription]:
    """The subscriptions that a query names, at least one. Raises `QueryError`."""
    fields = _fields(query)
    selected = {name: fields[name] for name in _SELECTIONS if name in fields}
    if not selected:
        raise QueryError(f"name what to follow: {', '.join(_SELECTIONS)}")
    where = {name: fields[name] for name in ("states", "providers", "tenant_ids") if name in fields}
    found = []
    for name, value in selected.items():
        options: dict[str, object] = {}
        if name not in {"lanes", "dead_letters"}:
            options["deltas"] = fields.get("deltas", False)
        if name not in {"lanes", "dead_letters", "request_ids"}:
            options["where"] = where
        if name != "lanes" and "limit" in fields:
            options["limit"] = fields["limit"]
        try:
            found.append(Subscription.model_validate({name: value, **options}))
        except ValidationError as error:
            detail = error.errors(include_url=False, include_input=False, include_context=False)[0]
            field = ".".join(str(part) for part in detail["loc"])[:100]
            raise QueryError(f"{field}: {detail['msg']}") from error
    return found


def command_for(subscription: Subscription) -> str:
    """The same as a command."""
    asked = subscription.model_dump(mode="json", exclude_defaults=True)
    return json.dumps({"id": STREAM_COMMAND_ID, "type": "subscribe", **asked})


def resume_for(token: str, subscriptions: list[Subscription]) -> str:
    """The same, going on after a token. One that is no token at all is answered as a gap."""
    limit = next(part.max_length for part in Resume.model_fields["token"].metadata if hasattr(part, "max_length"))
    asked = [subscription.model_dump(mode="json", exclude_defaults=True) for subscription in subscriptions]
    return json.dumps({"id": STREAM_COMMAND_ID, "type": "resume", "token": token[:limit], "subscriptions": asked})


def stream_head(extra: Mapping[str, str]) -> bytes:
    """The response's head. The stream ends with the connection."""
    headers = {
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-store",
        "X-Accel-Buffering": "no",
        "Connection": "close",
        **SECURITY_HEADERS,
        **extra,
    }
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(("HTTP/1.1 200 OK", *lines, "", "")).encode()


def close_event(reason: Close) -> bytes:
    """The last event."""
    fields = {"code": reason.code, "reason": reason.text, "reconnect": reason.reconnect}
    return b"event: close\ndata: " + json.dumps(fields).encode() + b"\n\n"


def _fields(query: str) -> dict[str, object]:
    try:
        given = parse_qs(query, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS, errors="strict")
    except ValueError as error:
        raise QueryError("the query cannot be read") from error
    fields: dict[str, object] = {}
    for name, values in given.items():
        if name in _LISTS:
            fields[name] = [word for value in values for word in value.split(",") if word]
        elif name in _FLAGS and values[-1] in {"true", "false", "1", "0", ""}:
            fields[name] = values[-1] in {"true", "1", ""}
        elif name == "limit" and values[-1].isascii() and values[-1].isdigit() and len(values[-1]) < 10:
            fields[name] = int(values[-1])
        elif name in _WORDS and name != "limit":
            fields[name] = values[-1]
        else:
            raise QueryError(f"{name[:100]}: is not known here, or has no such value")
    return {name: value for name, value in fields.items() if value not in ([], False)}
