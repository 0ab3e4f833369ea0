"""A small server that speaks one provider's API, and can go wrong in every way that a provider can.

The request's model names the behaviour (`fault_cases.CASES`). Written on raw sockets: no HTTP library would reset
a connection, end a stream cleanly without its end, or fall silent.
"""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from tests.support.fault_wire import PIECES, REQUEST_ID, Asked, Fault, Wire
from tests.support.fault_wire_openai import OpenAIWire


@dataclass
class Exchange:
    """One request, and the means to answer it well or badly."""

    wire: Wire
    asked: Asked
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def streamed(self) -> bool:
        return self.asked.streamed

    @property
    def key(self) -> str:
        """The key that came, with what stands around it."""
        return self.headers[self.wire.key_header]

    async def send(self, status: int, body: str, *, content_type: str = "application/json", **headers: str) -> None:
        """A whole response."""
        data = body.encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        await self._head(status, {"content-type": content_type, "content-length": str(len(data)), **given})
        await self._write(data)

    async def fail(
        self, fault: Fault, *, status: int | None = None, message: str | None = None, **headers: str
    ) -> None:
        """An error with a status, in the API's own words."""
        status, body = self.wire.error(fault, status, message)
        if status == 200 and self.streamed:
            await self.begin_stream()
            await self.raw(self.wire.event(body))
            await self.end_stream()
        else:
            await self.send(status, body, **headers)

    async def begin_stream(self) -> None:
        await self._head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})

    async def tell(self) -> None:
        """The pieces of the answer, without its end."""
        await self.begin_stream()
        for event in self.wire.opening(self.asked):
            await self.raw(event)
        for piece in PIECES:
            await self.raw(self.wire.piece(piece, self.asked))

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

    async def keep_alive(self) -> None:
        """Signs of life without content, until the client hangs up."""
        while not self.hung_up.is_set():
            await self.raw(self.wire.keep_alive())
            await asyncio.sleep(0.02)

    async def watch(self) -> None:
        """Notes the moment when the client's side of the connection ends."""
        try:
            while await self.reader.read(4096):
                pass
        except ConnectionError:
            pass
        self.hung_up.set()

    async def _head(self, status: int, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} Status", "connection: close"]
        if self.wire.request_id_header:
            lines.append(f"{self.wire.request_id_header}: {REQUEST_ID}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        await self._write("\r\n".join([*lines, "", ""]).encode())

    async def _write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


Case = Callable[[Exchange], Awaitable[None]]


class FaultServer:
    """`async with FaultServer(CASES) as server:` on a free port of 127.0.0.1. `exchanges` in order of arrival."""

    def __init__(
        self, cases: Mapping[str, Case], wire: Wire | None = None, *, tls: ssl.SSLContext | None = None
    ) -> None:
        self._cases = cases
        self._tls = tls
        self._wire = wire or OpenAIWire()
        self.exchanges: list[Exchange] = []
        self.connections_made = 0
        self.connections_open = 0
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._server.sockets[0].getsockname()
        return host, port

    @property
    def root(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.address[0]}:{self.address[1]}"

    @property
    def base_url(self) -> str:
        return self.root + self._wire.path

    async def exchange(self) -> Exchange:
        """The first exchange, once it is there."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self.exchanges))
        return self.exchanges[0]

    async def all_connections_closed(self) -> None:
        """Returns once no connection is open."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.connections_open == 0)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
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
        await self._count(+1)
        try:
            await self._answer(await self._read(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # somebody connected and asked for nothing, or had enough
        finally:
            writer.close()
            await self._count(-1)

    async def _answer(self, exchange: Exchange) -> None:
        async with self._changed:
            self.exchanges.append(exchange)
            self._changed.notify_all()
        watching = asyncio.create_task(exchange.watch())
        try:
            await self._cases[exchange.asked.model](exchange)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _count(self, change: int) -> None:
        async with self._changed:
            self.connections_open += change
            self.connections_made += max(0, change)
            self._changed.notify_all()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Exchange:
        first, *head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head)}
        asked = Asked(model="list-of-models", streamed=False, prompt="")
        body: dict[str, Any] = {}
        if method == "POST":
            body = json.loads(await reader.readexactly(int(headers["content-length"])))
            asked = self._wire.asked(path, body)
        return Exchange(
            wire=self._wire, asked=asked, path=path, headers=headers, body=body, reader=reader, writer=writer
        )
