"""The listeners of floor and bridge: thousands of WebSocket clients, as bare as can be, so that they take little of the
machine. Arguments: port and path.
"""

import asyncio
import base64
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.fanout_run.child import answer_questions
from bench.fanout_run.ears import Ears

CONNECTS_AT_ONCE = 200
HANDSHAKE_SECONDS = 60

Heard = Callable[[bytes, float], None]
"""What, and when (monotonic seconds)."""


class BareClient(asyncio.Protocol):
    """Shakes hands, and reports every text frame. Answers pings, and checks nothing else.

    `ready` is done when it is connected, and after `follow` when it has its snapshot.
    """

    def __init__(self, port: int, path: str, heard: Heard) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_lost = False
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
            self.ready.set_result(None)
        self._buffer = self._frames(buffer, now)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if not self.ready.done():
            self.ready.set_exception(exc or ConnectionResetError("closed in the handshake"))

    def follow(self, subscription: dict[str, Any]) -> None:
        """Sends a subscription."""
        assert self._transport is not None
        self.ready = asyncio.get_running_loop().create_future()
        command = json.dumps({"id": 1, "type": "subscribe", **subscription})
        self._transport.write(_masked(0x81, command.encode()))

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
                self._heard(payload, now)
            at = body + size
        return buffer[at:]


class Clients:
    """All of them. Questions: connect, follow (one subscription, or one for each), listen, heard, lost."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._path = path
        self._ears = Ears()
        self._clients: list[BareClient] = []

    async def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        match question["ask"]:
            case "connect":
                await self._connect(question["count"])
            case "follow":
                await self._follow(question["subscriptions"])
            case "heard":
                return {"microseconds": await self._ears.heard(question["deliveries"])}
            case "listen":
                self._ears.listen()
        return {"lost": sum(client.is_lost for client in self._clients)}

    async def _connect(self, count: int) -> None:
        loop, gate = asyncio.get_running_loop(), asyncio.Semaphore(CONNECTS_AT_ONCE)

        async def connect() -> BareClient:
            async with gate, asyncio.timeout(HANDSHAKE_SECONDS):
                _, client = await loop.create_connection(
                    lambda: BareClient(self._port, self._path, self._ears.hear), "127.0.0.1", self._port
                )
                await client.ready
            return client

        self._clients = list(await asyncio.gather(*(connect() for _ in range(count))))
        gc.freeze()  # pauses of the listeners are no part of what is measured

    async def _follow(self, subscriptions: Sequence[dict[str, Any]]) -> None:
        for start in range(0, len(self._clients), CONNECTS_AT_ONCE):
            some = self._clients[start : start + CONNECTS_AT_ONCE]
            for number, client in enumerate(some, start):
                client.follow(subscriptions[number % len(subscriptions)])
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await asyncio.gather(*(client.ready for client in some))


def _masked(first: int, payload: bytes) -> bytes:
    """A client's frame, masked with zeros: the payload stays as it is."""
    size = len(payload)
    head = bytes((first, 0x80 | size)) if size < 126 else bytes((first, 0xFE)) + size.to_bytes(2, "big")
    return head + bytes(4) + payload


async def main(port: str, path: str) -> None:
    """Listens until its input ends."""
    await answer_questions(Clients(int(port), path).answer)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
