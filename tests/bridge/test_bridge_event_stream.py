"""Server-sent events: the same pushes for networks that break WebSockets."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from bridge_support import HubOptions, Kafka, delta, make_hub, serving, status_event, until
from hypothesis import given
from hypothesis import strategies as st
from test_bridge_tickets import by_secret, ticket

from schemas.vocabulary import State
from websocket_bridge.commands import CommandError, parse_command
from websocket_bridge.event_stream import QueryError, command_for, resume_for, subscriptions_of
from websocket_bridge.server import BridgeServer


class Stream:
    """A reader of one stream."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.last_id: str | None = None

    async def event(self, kind: str) -> dict[str, Any]:
        """The data of the next event of this type; others before it are passed over."""
        async with asyncio.timeout(10):
            while True:
                fields: dict[str, str] = {}
                while line := (await self.response.content.readline()).decode().rstrip("\n"):
                    name, _, value = line.partition(": ")
                    fields[name] = value
                self.last_id = fields.get("id", self.last_id)
                if "data" not in fields:
                    continue
                data = json.loads(fields["data"])
                if kind in (data.get("type"), fields.get("event")):
                    return data


@contextlib.asynccontextmanager
async def listening(server: BridgeServer, query: str, **headers: str) -> AsyncIterator[Stream]:
    url = f"http://127.0.0.1:{server.port}/events?{query}"
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        yield Stream(response)


async def test_a_stream_greets_shows_and_follows() -> None:
    """hello, the answer, the snapshot, and then changes, as JSON of the same protocol."""
    hub, metrics, registry = make_hub()
    hub.on_status(status_event("a"))
    async with serving(hub, metrics) as server:
        async with listening(server, "request_ids=a,b&deltas=true") as stream:
            assert stream.response.status == 200
            assert stream.response.headers["Content-Type"].startswith("text/event-stream")
            assert (await stream.event("hello"))["protocol"] == "sluice.v1"
            assert (await stream.event("subscribed"))["subscriptions"] == 2
            assert [e["request_id"] for e in (await stream.event("snapshot"))["requests"]] == ["a"]
            hub.on_status(status_event("b", State.PROCESSING, 2))
            assert (await stream.event("status"))["event"]["request_id"] == "b"
            hub.on_delta(delta("b", 0, "Hello\n\ndata: fake"))
            assert (await stream.event("delta"))["text"] == "Hello\n\ndata: fake"
        await until(lambda: registry.get_sample_value("sluice_bridge_connections") == 0, what="the stream is forgotten")


async def test_a_stream_goes_on_after_its_last_event_id() -> None:
    """What happened meanwhile comes first, exactly that."""
    hub, metrics, _ = make_hub()
    kafka = Kafka()
    kafka.begin(hub)
    async with serving(hub, metrics) as server:
        async with listening(server, "all=true") as stream:
            await stream.event("snapshot")
            hub.on_status(status_event("a"), kafka.spot(0))
            await stream.event("status")
        assert stream.last_id is not None
        hub.on_status(status_event("b"), kafka.spot(0))
        async with listening(server, "all=true", **{"Last-Event-ID": stream.last_id}) as again:
            answer = await again.event("resumed")
            assert (answer["recovered"], answer["events"]) == (True, 1)
            assert (await again.event("status"))["event"]["request_id"] == "b"
        async with listening(server, "all=true", **{"Last-Event-ID": "nonsense"}) as lost:
            assert (await lost.event("resumed"))["gap"] == "invalid"
            assert len((await lost.event("snapshot"))["requests"]) == 2


async def test_on_shutdown_a_stream_is_told_and_ends() -> None:
    """The reason comes as the last event."""
    hub, metrics, _ = make_hub()
    async with contextlib.AsyncExitStack() as client, asyncio.timeout(15):
        async with serving(hub, metrics) as server:
            stream = await client.enter_async_context(listening(server, "all=true"))
            await stream.event("snapshot")
        assert (await stream.event("close"))["code"] == 1001
        assert await stream.response.content.read() == b""


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("request_ids=", 400),
        ("request_ids=no%20id", 400),
        ("all=perhaps", 400),
        ("colour=red", 400),
        ("all=true", 403),
        ("dead_letters=1", 403),
    ],
)
async def test_what_cannot_be_followed_is_refused_with_its_status(query: str, status: int) -> None:
    """Nothing named, nonsense, and what is outside of the scope."""
    hub, metrics, _ = make_hub(HubOptions(allow_all=False))
    async with serving(hub, metrics) as server, listening(server, query) as stream:
        assert stream.response.status == status
        assert (await stream.response.text()).strip()


async def test_a_stream_needs_a_ticket_where_tickets_are_asked_for() -> None:
    """In a header, never in the address; and it bounds what is seen."""
    hub, metrics, _ = make_hub(asks_for_tickets=True)
    async with serving(hub, metrics, tickets=by_secret()) as server:
        for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": f"Basic {ticket()}"}):
            async with listening(server, "request_ids=a", **headers) as stream:
                assert stream.response.status == 401
        async with listening(server, "user_id=mira", Authorization=f"Bearer {ticket()}") as stream:
            assert (await stream.event("hello"))["viewer"]["user_id"] == "mira"
            await stream.event("snapshot")
            hub.on_status(status_event("a", user_id="mira", tenant_id="other"))
            hub.on_status(status_event("b", user_id="mira", tenant_id="press"))
            assert (await stream.event("status"))["event"]["request_id"] == "b"


async def test_a_stream_that_is_not_read_is_closed_and_forgotten() -> None:
    """The same outbox, and the same end, as a WebSocket has."""
    hub, metrics, registry = make_hub(HubOptions(outbox_events=50))
    async with serving(hub, metrics) as server, listening(server, "all=true") as stream:
        await stream.event("snapshot")
        for number in range(5_000):
            hub.on_status(status_event(f"r{number}", message="x" * 20_000))
            if not len(hub.roster):
                break
            await asyncio.sleep(0)
        assert registry.get_sample_value("sluice_bridge_closes_total", {"code": "4500"}) == 1


@given(st.text(max_size=200))
def test_no_query_makes_reading_it_raise_anything_else(query: str) -> None:
    """It names subscriptions, or the error says what is wrong; what it names makes good commands."""
    try:
        found = subscriptions_of(query)
    except QueryError:
        return
    for text in (*map(command_for, found), resume_for("x", found)):
        assert not isinstance(parse_command(text), CommandError)
