"""A client whose connection is reset: nothing more is written to it, from the first write that fails on."""

import asyncio
import logging
import socket
import struct

import pytest
from bridge_support import make_hub, serving, status_event, until
from test_bridge_sweep import HANDSHAKE

from schemas.vocabulary import State


async def test_no_write_follows_one_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    """Many events in one go, before the loop has told anybody: asyncio warns of each write after the fifth."""
    hub, metrics, _ = make_hub()
    loop = asyncio.get_running_loop()
    async with serving(hub, metrics) as server:
        client = socket.create_connection(("127.0.0.1", server.port))
        client.setblocking(False)
        await loop.sock_sendall(client, HANDSHAKE.encode())
        received = b""
        while b'"hello"' not in received:
            received += await loop.sock_recv(client, 4096)
        await loop.sock_sendall(client, masked(b'{"id": 1, "type": "subscribe", "all": true}'))
        while b'"last":true' not in received:
            received += await loop.sock_recv(client, 4096)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()  # which resets, with that option
        with caplog.at_level(logging.WARNING, logger="asyncio"):
            for version in range(1, 50):
                hub.on_status(status_event("a", State.PROCESSING, version))
                hub.flush()
        await until(lambda: len(hub.roster) == 0, what="the client has left")
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


def masked(payload: bytes) -> bytes:
    """A text frame of a client, masked with zeros."""
    return bytes((0x81, 0x80 | len(payload))) + bytes(4) + payload
