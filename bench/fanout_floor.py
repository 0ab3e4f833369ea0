"""The floor of the fan-out: a bare `websockets` server that is fed in its own process.

Reads one JSON line per measurement from its input and answers it with one line: {"push": count, "rate": per second}
sends that many texts, each to the next client; {"broadcast": count, "every": seconds} sends each to all.
"""

import asyncio
import json
import logging
import sys
import time
from typing import Any

from websockets.asyncio.server import ServerConnection, broadcast, serve

TEXT = json.dumps({"type": "status", "event": {"request_id": "r", "padding": "x" * 300, "message": "%s"}})


def text() -> str:
    """About as large as a status, with the moment in it."""
    return TEXT.replace("%s", f"{time.monotonic():.6f}")


async def main() -> None:
    """Serves until its input ends. Prints its port first."""
    logging.getLogger("websockets").setLevel(logging.ERROR)
    connections: list[ServerConnection] = []

    async def handler(connection: ServerConnection) -> None:
        connections.append(connection)
        await connection.wait_closed()
        connections.remove(connection)

    async with serve(handler, "127.0.0.1", 0, compression=None, subprotocols=None, open_timeout=60) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            await _measure(json.loads(line), connections)
            print("done", flush=True)


async def _measure(asked: dict[str, Any], connections: list[ServerConnection]) -> None:
    began = time.monotonic()
    if "push" in asked:
        for number in range(asked["push"]):
            delay = began + number / asked["rate"] - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            await connections[number % len(connections)].send(text())
        return
    for number in range(asked["broadcast"]):
        delay = began + number * asked["every"] - time.monotonic()
        if delay > 0:
            await asyncio.sleep(delay)
        broadcast(connections, text())


if __name__ == "__main__":
    asyncio.run(main())
