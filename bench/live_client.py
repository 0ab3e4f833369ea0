"""A client of the live view as docs/websocket.md wants it: keeps the newest token, comes back, and resumes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

PAUSE_SECONDS = 0.05

Told = tuple[str, str, int, int]
"""What was told: kind, request, version or attempt, number of the piece."""


class LiveClient:
    """Notes all that it is told, and drops nothing: what comes twice is seen."""

    def __init__(self, port: int, subscriptions: list[dict[str, Any]]) -> None:
        self.told: list[Told] = []
        self.answers: list[dict[str, Any]] = []
        self.connections = 0
        self._url = f"ws://127.0.0.1:{port}/ws"
        self._subscriptions = subscriptions
        self._token: str | None = None

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                async with connect(self._url, subprotocols=["sluice.v1"], proxy=None, max_size=None) as connection:  # type: ignore[list-item]
                    self.connections += 1
                    await connection.send(json.dumps(self._command()))
                    async for message in connection:
                        self._take(json.loads(message))
            except (ConnectionClosed, InvalidHandshake, OSError, TimeoutError):
                await asyncio.sleep(PAUSE_SECONDS)

    def _command(self) -> dict[str, Any]:
        if self._token is None:
            return {"id": 1, "type": "subscribe", **self._subscriptions[0]}
        return {"id": 1, "type": "resume", "token": self._token, "subscriptions": self._subscriptions}

    def _take(self, frame: dict[str, Any]) -> None:
        self._token = frame.get("resume", self._token)
        match frame["type"]:
            case "status":
                self.told.append(("status", frame["event"]["request_id"], frame["event"]["state_version"], 0))
            case "delta":
                for seq in range(frame["seq"], frame["last_seq"] + 1):
                    self.told.append(("delta", frame["request_id"], frame["attempt"], seq))
            case "result":
                self.told.append(("result", frame["result"]["request_id"], frame["result"]["state_version"], 0))
            case "subscribed" | "resumed":
                self.answers.append(frame)


@asynccontextmanager
async def at_work(client: LiveClient) -> AsyncIterator[LiveClient]:
    """The client runs from entry to exit."""
    task = asyncio.create_task(client.run())
    try:
        yield client
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
