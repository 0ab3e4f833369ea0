"""The server, with real WebSocket clients on a free port."""

import asyncio
import contextlib
import json
from http.client import HTTPConnection, HTTPResponse

import pytest
from bridge_support import HubOptions, closing, connected, delta, make_hub, serving, status_event, until
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from schemas.vocabulary import State
from websocket_bridge.messages import SUBPROTOCOL
from websocket_bridge.server import BridgeServer
from websocket_bridge.session import MAX_COMMAND_BYTES, MAX_INVALID_COMMANDS_IN_A_ROW
from websocket_bridge.subjects import ALL


def ask(server: BridgeServer, method: str, path: str, headers: dict[str, str]) -> tuple[HTTPResponse, bytes]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


async def http(
    server: BridgeServer, path: str, *, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[HTTPResponse, bytes]:
    return await asyncio.to_thread(ask, server, method, path, headers or {})


async def test_a_request_is_followed_from_queued_to_completed() -> None:
    """Over a real connection: greeting, answer, snapshot, then each change as it happens."""
    hub, metrics, _ = make_hub()
    hub.on_status(status_event("a"))
    async with serving(hub, metrics) as server, connected(server) as client:
        assert client.connection.subprotocol == SUBPROTOCOL
        assert (await client.push("hello"))["protocol"] == SUBPROTOCOL
        assert (await client.command("subscribe", request_ids=["a"], deltas=True))["type"] == "subscribed"
        assert (await client.push("snapshot"))["requests"][0]["state"] == "queued"
        hub.on_status(status_event("a", State.PROCESSING, 2))
        hub.on_delta(delta("a", 0, "Hi"))
        hub.on_status(status_event("a", State.COMPLETED, 3))
        assert (await client.push("status"))["event"]["state"] == "processing"
        assert (await client.push("delta"))["text"] == "Hi"
        assert (await client.push("status"))["event"]["state"] == "completed"
        assert (await client.command("ping"))["type"] == "pong"


async def test_the_page_is_served_with_headers_that_allow_nothing_else() -> None:
    """Each file has its type; no inline script, no other host, no frame, no sniffing."""
    hub, metrics, _ = make_hub()
    async with serving(hub, metrics) as server:
        for path, content_type in {
            "/": "text/html; charset=utf-8",
            "/?request_id=a": "text/html; charset=utf-8",
            "/app.js": "text/javascript; charset=utf-8",
            "/app.css": "text/css; charset=utf-8",
            "/favicon.svg": "image/svg+xml",
        }.items():
            response, body = await http(server, path)
            assert (response.status, response.headers["Content-Type"]) == (200, content_type)
            assert int(response.headers["Content-Length"]) == len(body) > 0
            policy = response.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "http" not in policy
            assert "frame-ancestors 'none'" in policy
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Referrer-Policy"] == "no-referrer"
            assert "Server" not in response.headers


async def test_a_file_that_the_browser_has_is_not_sent_again() -> None:
    """The entity tag of the first answer brings 304; HEAD brings headers alone."""
    hub, metrics, _ = make_hub()
    async with serving(hub, metrics) as server:
        first, body = await http(server, "/app.js")
        again, nothing = await http(server, "/app.js", headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status, nothing) == (304, b"")
        head, nothing = await http(server, "/app.js", method="HEAD")
        assert (head.status, int(head.headers["Content-Length"]), nothing) == (200, len(body), b"")


@pytest.mark.parametrize(
    ("path", "method", "headers", "status"),
    [
        ("/nothing", "GET", {}, 404),
        ("/../server.py", "GET", {}, 404),
        ("/index.html", "GET", {}, 404),
        ("/", "DELETE", {}, 405),
        ("/", "GET", {"Host": "evil.example"}, 421),
        ("/ws", "GET", {}, 426),
        ("/ws", "GET", {"Origin": "https://evil.example"}, 403),
    ],
)
async def test_what_is_not_served_is_refused_with_its_status(
    path: str, method: str, headers: dict[str, str], status: int
) -> None:
    """Unknown paths, other methods, foreign host names, plain HTTP on the WebSocket path, foreign origins."""
    hub, metrics, _ = make_hub()
    async with serving(hub, metrics) as server:
        response, body = await http(server, path, method=method, headers=headers)
        assert response.status == status
        assert body


async def test_a_foreign_origin_is_refused_and_configured_ones_are_not() -> None:
    """A page of somebody else cannot open a WebSocket; those of the settings, and the bridge's own, can."""
    hub, metrics, _ = make_hub()
    async with serving(hub, metrics, allowed_origins=["https://tools.example"]) as server:
        for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
            with pytest.raises(InvalidStatus) as refused:
                async with connected(server, origin=origin):
                    pass
            assert refused.value.response.status_code == 403
        for origin in ("https://tools.example", f"http://127.0.0.1:{server.port}"):
            async with connected(server, origin=origin) as client:
                assert (await client.command("ping"))["type"] == "pong"


async def test_a_client_without_the_subprotocol_is_refused() -> None:
    """The version of the protocol is agreed on in the handshake, or there is no connection."""
    hub, metrics, _ = make_hub()
    async with serving(hub, metrics) as server:
        url = f"ws://127.0.0.1:{server.port}/ws"
        for subprotocols in (None, ["sluice.v0"]):
            with pytest.raises(InvalidStatus):
                async with connect(url, subprotocols=subprotocols, proxy=None):
                    pass


async def test_beyond_its_connections_the_bridge_says_try_again_later() -> None:
    """The client over the limit gets 1013, and one that leaves makes room."""
    hub, metrics, _ = make_hub(HubOptions(max_connections=1))
    async with serving(hub, metrics) as server:
        async with connected(server) as first:
            await first.command("ping")
            async with connected(server) as second:
                with pytest.raises(ConnectionClosed) as closed:
                    await second.command("ping")
            assert closed.value.rcvd.code == 1013
        await until(lambda: len(hub.roster) == 0, what="the hub forgets the first client")
        async with connected(server) as third:
            assert (await third.command("ping"))["type"] == "pong"


@pytest.mark.parametrize(
    ("message", "code"), [(b"\x00\x01", 1003), ("x" * (MAX_COMMAND_BYTES + 1), 1009), ("nonsense", 4400)]
)
async def test_abuse_ends_the_connection_with_its_code(message: str | bytes, code: int) -> None:
    """Binary frames, frames too large, and nonsense repeated."""
    hub, metrics, registry = make_hub()
    async with serving(hub, metrics) as server, connected(server) as client:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(MAX_INVALID_COMMANDS_IN_A_ROW + 1):
                await client.connection.send(message)
        assert (await closing(client.connection))[0] == code
        await until(lambda: registry.get_sample_value("sluice_bridge_connections") == 0, what="the client is forgotten")


async def test_on_shutdown_clients_are_told_that_the_bridge_goes_away() -> None:
    """1001 with a reason, for idle clients and for one that does not read; and it ends."""
    hub, metrics, _ = make_hub(HubOptions(outbox_bytes=100_000_000))
    async with asyncio.timeout(15), serving(hub, metrics) as server:  # a lost client's ping times out after 25 s
        url = f"ws://127.0.0.1:{server.port}/ws"
        idle = await connect(url, subprotocols=[SUBPROTOCOL], proxy=None)
        stuck = await connect(url, subprotocols=[SUBPROTOCOL], proxy=None, max_queue=1)
        await stuck.send(json.dumps({"id": 1, "type": "subscribe", "all": True}))
        await until(lambda: len(hub.roster.followers(ALL)) == 1, what="the second client is subscribed")
        stuck.transport.pause_reading()
        text = "x" * 100_000
        for number in range(300):
            hub.on_status(status_event(f"r{number}", message=text))
        connections = server._server.all_connections
        await until(lambda: any(c.paused for c in connections), what="the network takes no more for that client")
    assert await closing(idle) == (1001, "the bridge is shutting down")
    stuck.transport.abort()


async def test_a_client_that_stops_reading_is_closed_and_delays_nobody() -> None:
    """While its own buffers fill up, another client gets every change; then it is closed with 4500."""
    hub, metrics, registry = make_hub(HubOptions(outbox_events=100))
    async with serving(hub, metrics) as server, connected(server) as quick:
        url = f"ws://127.0.0.1:{server.port}/ws"
        slow = await connect(url, subprotocols=[SUBPROTOCOL], proxy=None, max_queue=1)
        await slow.send(json.dumps({"id": 1, "type": "subscribe", "all": True}))
        await quick.command("subscribe", all=True)
        await until(lambda: len(hub.roster.followers(ALL)) == 2, what="both are subscribed")
        slow.transport.pause_reading()
        text = "x" * 20_000
        closes = 0.0
        for number in range(2_000):
            hub.on_status(status_event(f"r{number}", message=text))
            assert (await quick.push("status"))["event"]["request_id"] == f"r{number}"
            closes = registry.get_sample_value("sluice_bridge_closes_total", {"code": "4500"}) or 0.0
            if closes:
                break
        assert closes == 1
        await until(lambda: registry.get_sample_value("sluice_bridge_connections") == 1, what="the slow one is gone")
        assert (await quick.command("ping"))["type"] == "pong"
        slow.transport.abort()


async def test_a_client_that_asks_without_reading_is_not_served_ahead() -> None:
    """Its next command is carried out once the answer to the last one is sent: answers cannot pile up."""
    hub, metrics, _ = make_hub(HubOptions(remembered_requests=2_000))
    for number in range(2_000):
        hub.on_status(status_event(f"r{number}", message="x" * 2_000))
    async with serving(hub, metrics) as server:
        url = f"ws://127.0.0.1:{server.port}/ws"
        greedy = await connect(url, subprotocols=[SUBPROTOCOL], proxy=None, max_queue=1, max_size=None)
        greedy.transport.pause_reading()
        await until(lambda: len(hub.roster) == 1, what="the client is known to the hub")
        (client,) = hub.roster
        frames_of_one_command = 2 + 2_000 // 200
        for number in range(5):
            await greedy.send(json.dumps({"id": number, "type": "subscribe", "all": True}))
        await until(lambda: ALL in client.session.followed, what="the first command is carried out")
        for _ in range(200):
            await asyncio.sleep(0)
            assert len(client.outbox) <= frames_of_one_command
        greedy.transport.resume_reading()
        answers = 0
        while answers < 5:
            answers += json.loads(await asyncio.wait_for(greedy.recv(), 10))["type"] == "subscribed"
        greedy.transport.abort()


async def test_a_client_that_vanishes_is_forgotten() -> None:
    """A connection cut without a goodbye leaves nothing in the hub."""
    hub, metrics, registry = make_hub()
    async with serving(hub, metrics) as server, connected(server) as client:
        await client.command("subscribe", request_ids=["a"])
        client.connection.transport.abort()
        await until(lambda: registry.get_sample_value("sluice_bridge_connections") == 0, what="the client is forgotten")
        assert hub.roster.is_blank


async def test_a_client_that_breaks_the_protocol_amid_its_commands_is_forgotten() -> None:
    """Commands, a malformed frame and the end, all in one packet: nobody waits for an answer to be sent any more."""
    hub, metrics, _ = make_hub()
    async with serving(hub, metrics) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        key = "dGhlIHNhbXBsZSBub25jZQ=="
        writer.write(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: sluice.v1\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        await until(lambda: len(hub.roster) == 1, what="the client is known")
        command = b'{"id":1,"type":"subscribe","all":true}'
        frame = bytes((0x81, 0x80 | len(command))) + bytes(4) + command
        writer.write(frame * 10 + b"\x83\x80" + bytes(4))
        writer.close()
        await until(lambda: hub.roster.is_blank, what="the client is forgotten")
