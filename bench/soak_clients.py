"""Clients that the bridge has to bear: they come and go, read nothing, or send what is no command and no frame."""

import asyncio
import base64
import contextlib
import json
import os
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

CHURNING, SLOW, FUZZING = 20, 4, 6
ENDINGS = (ConnectionClosed, InvalidHandshake, OSError, TimeoutError)
SLOW_SECONDS = 10.0
"""So long a slow reader takes nothing. Then it goes, and another one comes."""


@dataclass
class Counts:
    """What they did."""

    connections: int = 0
    fuzzed: int = 0


class Nuisances:
    """All of them, until `goes_on` says no. `request_id` draws one that there may have been."""

    def __init__(
        self, port: int, *, draw: random.Random, request_id: Callable[[], str], goes_on: Callable[[], bool]
    ) -> None:
        self.counts = Counts()
        self._port = port
        self._random = draw
        self._request_id = request_id
        self._goes_on = goes_on

    def works(self) -> list[Coroutine[Any, Any, None]]:
        """To be run side by side."""
        return [
            *(self._churn() for _ in range(CHURNING)),
            *(self._read_slowly() for _ in range(SLOW)),
            *(self._fuzz() for _ in range(FUZZING)),
        ]

    async def _churn(self) -> None:
        """Comes, follows something, reads a little, and goes, politely or not."""
        token: str | None = None
        while self._goes_on():
            try:
                async with self._connection() as connection:
                    self.counts.connections += 1
                    selection = self._selection()
                    command = {"id": 1, "type": "subscribe", **selection}
                    if token is not None and self._random.random() < 0.5:
                        command = {"id": 1, "type": "resume", "token": token, "subscriptions": [selection]}
                    await connection.send(json.dumps(command))
                    for _ in range(self._random.randrange(1, 40)):
                        async with asyncio.timeout(2):
                            token = json.loads(await connection.recv()).get("resume", token)
                    if self._random.random() < 0.3:
                        connection.transport.abort()
            except ENDINGS:
                token = token if self._random.random() < 0.9 else None
            await asyncio.sleep(self._random.random() * 0.3)

    def _selection(self) -> dict[str, Any]:
        return self._random.choice(
            [
                {"all": True},
                {"all": True, "deltas": True, "where": {"states": ["completed"]}},
                {"tenant_id": "tenant-1", "deltas": True},
                {"request_ids": [self._request_id(), "soak-nobody"], "deltas": True},
                {"lanes": True},
                {"dead_letters": True},
            ]
        )

    async def _read_slowly(self) -> None:
        """Follows everything and takes nothing from the network."""
        while self._goes_on():
            try:
                async with self._connection(max_queue=1) as connection:
                    await connection.send('{"id": 1, "type": "subscribe", "all": true, "deltas": true}')
                    connection.transport.pause_reading()
                    await asyncio.sleep(SLOW_SECONDS)
                    connection.transport.abort()
            except ENDINGS:
                await asyncio.sleep(0.1)

    async def _fuzz(self) -> None:
        """Malformed commands, malformed frames, and bytes that are neither."""
        while self._goes_on():
            with contextlib.suppress(*ENDINGS, asyncio.IncompleteReadError):
                await self._random.choice([self._fuzz_commands, self._fuzz_bytes])()
            await asyncio.sleep(self._random.random() * 0.1)

    async def _fuzz_commands(self) -> None:
        async with self._connection() as connection:
            for _ in range(30):
                good = json.dumps({"id": 1, "type": "subscribe", **self._selection()})
                at = self._random.randrange(len(good))
                await connection.send(
                    self._random.choice(
                        [
                            good[:at],
                            good[:at] + chr(self._random.randrange(1, 0xD800)) + good[at:],
                            "[" * 5_000,
                            "x" * 70_000,
                        ]
                    )
                )
                self.counts.fuzzed += 1

    async def _fuzz_bytes(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            if self._random.random() < 0.8:
                key = base64.b64encode(os.urandom(16)).decode()
                head = (
                    f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
                    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                    f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
                    "Sec-WebSocket-Protocol: sluice.v1\r\n\r\n"
                )
                writer.write(head.encode())
                async with asyncio.timeout(5):
                    await reader.readuntil(b"\r\n\r\n")
            for _ in range(self._random.randrange(1, 5)):
                writer.write(self._random.randbytes(self._random.randrange(1, 2_000)))
                await writer.drain()
                self.counts.fuzzed += 1
        finally:
            writer.transport.abort()

    def _connection(self, **options: Any) -> Any:
        url = f"ws://127.0.0.1:{self._port}/ws"
        return connect(url, subprotocols=["sluice.v1"], proxy=None, max_size=None, open_timeout=10, **options)  # type: ignore[list-item]
