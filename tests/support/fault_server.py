"""A small server that speaks OpenAI's chat completions, and can go wrong in every way that a provider can.

The request's `model` names the behaviour (`fault_cases.CASES`). Written on raw sockets: no HTTP library would reset
a connection, end a stream cleanly without its end, or fall silent.
"""

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

REQUEST_ID = "req_fault_server"


@dataclass
class Exchange:
    """One request, and the means to answer it well or badly."""

    model: str
    streamed: bool
    headers: dict[str, str]
    body: dict[str, Any]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, status: int, body: str, *, content_type: str = "application/json", **headers: str) -> None:
        """A whole response."""
        data = body.encode()
        await self._head(status, {"content-type": content_type, "content-length": str(len(data)), **headers})
        await self._write(data)

    async def error(self, status: int, message: str, *, code: str | None = None, **headers: str) -> None:
        error = {"message": message, "type": "some_error", "param": None, "code": code}
        await self.send(status, json.dumps({"error": error}), **headers)

    async def begin_stream(self) -> None:
        await self._head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})

    async def event(self, data: str) -> None:
        await self.raw(f"data: {data}\n\n")

    async def raw(self, text: str) -> None:
        data = text.encode()
        await self._write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def end_stream(self) -> None:
        await self._write(b"0\r\n\r\n")

    def reset(self) -> None:
        """A reset instead of a goodbye."""
        raw_socket = self.writer.get_extra_info("socket")
        raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def silence(self) -> None:
        """Nothing more, until the client hangs up."""
        await self.hung_up.wait()

    async def watch(self) -> None:
        """Notes the moment when the client's side of the connection ends."""
        try:
            while await self.reader.read(4096):
                pass
        except ConnectionError:
            pass
        self.hung_up.set()

    async def _head(self, status: int, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} Status", f"x-request-id: {REQUEST_ID}", "connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self._write("\r\n".join([*lines, "", ""]).encode())

    async def _write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


Case = Callable[[Exchange], Awaitable[None]]


class FaultServer:
    """`async with FaultServer(CASES) as server:` on a free port of 127.0.0.1. `exchanges` in order of arrival."""

    def __init__(self, cases: Mapping[str, Case]) -> None:
        self._cases = cases
        self.exchanges: list[Exchange] = []
        self._arrived = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def base_url(self) -> str:
        host, port = self._server.sockets[0].getsockname()
        return f"http://{host}:{port}/v1"

    async def exchange(self) -> Exchange:
        """The first exchange, once it is there."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: bool(self.exchanges))
        return self.exchanges[0]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for exchange in self.exchanges:
            exchange.hung_up.set()
        await asyncio.gather(*self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            exchange = await _read(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()  # somebody connected and asked for nothing
            return
        async with self._arrived:
            self.exchanges.append(exchange)
            self._arrived.notify_all()
        watching = asyncio.create_task(exchange.watch())
        try:
            await self._cases[exchange.model](exchange)
        except ConnectionError:
            pass  # the client had enough
        finally:
            writer.close()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Exchange:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head)}
    body = json.loads(await reader.readexactly(int(headers["content-length"])))
    return Exchange(
        model=body["model"],
        streamed=body.get("stream", False),
        headers=headers,
        body=body,
        reader=reader,
        writer=writer,
    )
