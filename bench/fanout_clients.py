"""Thousands of WebSocket clients in one process, as bare as can be, so that they take little of the machine."""

import asyncio
import base64
import json
import os
import time
from collections.abc import Callable
from typing import Any

CONNECTS_AT_ONCE = 200
HANDSHAKE_SECONDS = 60

Heard = Callable[[int, bytes, float], None]
"""Which client, what, and when (monotonic seconds)."""


class BareClient(asyncio.Protocol):
    """Shakes hands, sends one command, and reports every text frame. Answers pings, and checks nothing else."""

    def __init__(self, number: int, command: bytes, port: int, path: str, heard: Heard) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_lost = False
        self._number = number
        self._command = command
        self._port = port
        self._path = path
        self._heard = heard
        self._buffer = b""
        self._shaken = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: sluice.v1\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        buffer = self._buffer + data if self._buffer else data
        if not self._shaken:
            head, end, buffer = buffer.partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return
            assert head.startswith(b"HTTP/1.1 101"), head[:200]
            self._shaken = True
            if self._command and self._transport is not None:
                self._transport.write(_masked(0x81, self._command))
            if not self._command:
                self.ready.set_result(None)
        self._buffer = self._frames(buffer, now)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if not self.ready.done():
            self.ready.set_exception(exc or ConnectionResetError("closed in the handshake"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _frames(self, buffer: bytes, now: float) -> bytes:
        at = 0
        while len(buffer) - at >= 2:
            size, body = buffer[at + 1] & 0x7F, at + 2
            if size == 126:
                size, body = int.from_bytes(buffer[at + 2 : at + 4], "big"), at + 4
            elif size == 127:
                size, body = int.from_bytes(buffer[at + 2 : at + 10], "big"), at + 10
            if len(buffer) < body + size:
                break
            payload = buffer[body : body + size]
            if buffer[at] == 0x89 and self._transport is not None:
                self._transport.write(_masked(0x8A, payload))
            elif buffer[at] == 0x81:
                if not self.ready.done() and b'"type":"snapshot"' in payload and b'"last":true' in payload:
                    self.ready.set_result(None)
                self._heard(self._number, payload, now)
            at = body + size
        return buffer[at:]


async def connect_all(port: int, path: str, commands: list[dict[str, Any] | None], heard: Heard) -> list[BareClient]:
    """One client for each command; returns when all have their snapshot (or are connected, without a command)."""
    gate = asyncio.Semaphore(CONNECTS_AT_ONCE)
    loop = asyncio.get_running_loop()

    async def connect(number: int, command: dict[str, Any] | None) -> BareClient:
        text = json.dumps(command).encode() if command else b""
        async with gate:
            _, client = await loop.create_connection(
                lambda: BareClient(number, text, port, path, heard), "127.0.0.1", port
            )
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await client.ready
        return client

    return list(await asyncio.gather(*(connect(number, command) for number, command in enumerate(commands))))


def _masked(first: int, payload: bytes) -> bytes:
    """A client's frame, masked with zeros: the payload stays as it is."""
    size = len(payload)
    head = bytes((first, 0x80 | size)) if size < 126 else bytes((first, 0xFE)) + size.to_bytes(2, "big")
    return head + bytes(4) + payload
