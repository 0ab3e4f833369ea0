"""The floor: a bare `websockets` server that makes its events in its own process, compression off, else as it comes."""

import asyncio
import json
import logging
from typing import Any

from websockets.asyncio.server import ServerConnection, broadcast, serve

from bench.fanout_run.child import answer_questions
from bench.fanout_run.ears import made_now
from bench.measuring import paced

TEXT = json.dumps({"type": "status", "event": {"request_id": "r", "padding": "x" * 300, "message": "%s"}})
"""About as large as a status."""


async def main() -> None:
    """Serves until its input ends."""
    logging.getLogger("websockets").setLevel(logging.ERROR)
    connections: list[ServerConnection] = []

    async def handler(connection: ServerConnection) -> None:
        connections.append(connection)
        await connection.wait_closed()
        connections.remove(connection)

    async with serve(handler, "127.0.0.1", 0, compression=None, open_timeout=60) as server:

        async def answer(question: dict[str, Any]) -> dict[str, Any]:
            if question["ask"] == "port":
                return {"port": server.sockets[0].getsockname()[1]}
            async for number in paced(question["rate"], question["count"]):
                text = TEXT.replace("%s", made_now())
                if question["ask"] == "broadcast":
                    broadcast(connections, text)
                else:
                    await connections[number % len(connections)].send(text)
            return {}

        await answer_questions(answer)


if __name__ == "__main__":
    asyncio.run(main())
