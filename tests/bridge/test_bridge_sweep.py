"""What time alone brings about, for many connections: in turns, so that nobody waits while all are looked after."""

import asyncio

import pytest
from bridge_support import Clock, HubOptions, Kafka, Listener, connected, make_hub, serving, until

from websocket_bridge import server as bridge_server
from websocket_bridge.server import BridgeServer

HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Protocol: sluice.v1\r\n\r\n"
)


async def mute(server: BridgeServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that shakes hands, and then answers nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(HANDSHAKE.encode())
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def test_each_connection_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """One at a time: each quiet client is told the position, and those that have left meanwhile are passed over."""
    monkeypatch.setattr(bridge_server, "CONNECTIONS_PER_TURN", 1)
    monkeypatch.setattr(bridge_server, "SWEEP_INTERVAL_SECONDS", 0.05)
    clock = Clock()
    hub, metrics, _ = make_hub(HubOptions(more={"position_seconds": 5.0}), clock=clock)
    Kafka().begin(hub)
    async with (
        serving(hub, metrics) as server,
        connected(server) as first,
        connected(server) as second,
        connected(server) as third,
    ):
        for client in (first, second, third):
            await client.command("subscribe", request_ids=["a"])
        async with connected(server) as leaving:
            await leaving.command("subscribe", request_ids=["a"])
        clock.seconds += 6
        for client in (first, second, third):
            assert (await client.push("position"))["resume"]


async def test_a_client_that_answers_no_ping_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 1011, and nobody else is."""
    monkeypatch.setattr(bridge_server, "CONNECTIONS_PER_TURN", 1)
    monkeypatch.setattr(bridge_server, "SWEEP_INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(bridge_server, "PING_INTERVAL_SECONDS", 0.3)
    monkeypatch.setattr(bridge_server, "PING_TIMEOUT_SECONDS", 2.7)
    hub, metrics, _ = make_hub()
    async with serving(hub, metrics) as server, connected(server) as answering:
        reader, writer = await mute(server)
        await until(lambda: len(hub.roster) == 2, what="both have joined")
        received = await asyncio.wait_for(reader.read(), 20)
        assert b"\x89\x00" in received  # it was asked
        assert (1011).to_bytes(2, "big") in received
        writer.close()
        await until(lambda: len(hub.roster) == 1, what="the silent one has left")
        assert (await answering.command("ping"))["type"] == "pong"


def test_one_client_can_be_looked_after_alone() -> None:
    """Its neighbour has its turn later."""
    clock = Clock()
    hub, _, _ = make_hub(HubOptions(more={"position_seconds": 5.0}), clock=clock)
    Kafka().begin(hub)
    here, there = Listener(hub), Listener(hub)
    for listener in (here, there):
        listener.command("subscribe", request_ids=["a"])
        listener.read()
    clock.seconds += 6
    hub.sweep([here.client])
    assert [frame["type"] for frame in here.read()] == ["position"]
    assert there.read() == []
    hub.sweep()
    assert here.read() == []
    assert [frame["type"] for frame in there.read()] == ["position"]


def test_a_client_that_is_ending_is_left_alone() -> None:
    """It may have left between two turns."""
    clock = Clock()
    hub, _, _ = make_hub(HubOptions(more={"idle_seconds": 5.0}), clock=clock)
    gone = Listener(hub)
    gone.read()
    hub.leave(gone.client)
    clock.seconds += 6
    hub.sweep([gone.client])
    assert gone.read() == []
    assert gone.closed_with is None
