"""A proxy as companies have them: it opens tunnels (CONNECT), and remembers where to and on whose word."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class ConnectProxy:
    """`credentials`: user:password that it insists on. `to`: where all tunnels lead, whatever host was named."""

    to: tuple[str, int]
    credentials: str | None = None
    url: str = ""
    asked: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client."""
        try:
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            self.asked.append(first.split()[1])
            if self._allows(lines):
                await self._tunnel(reader, writer)
            else:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # somebody hung up
        finally:
            writer.close()

    def _allows(self, lines: list[str]) -> bool:
        if self.credentials is None:
            return True
        wanted = f"proxy-authorization: Basic {base64.b64encode(self.credentials.encode()).decode()}"
        return any(line.lower() == wanted.lower() for line in lines)

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self.to)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def connect_proxy(to: tuple[str, int], *, credentials: str | None = None) -> AsyncIterator[ConnectProxy]:
    """Runs on a free port of 127.0.0.1 until the block ends."""
    proxy = ConnectProxy(to=to, credentials=credentials)
    clients: set[asyncio.Task[None]] = set()

    def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = asyncio.create_task(proxy.serve(reader, writer))
        clients.add(client)
        client.add_done_callback(clients.discard)

    server = await asyncio.start_server(on_client, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    proxy.url = f"http://{host}:{port}"
    try:
        yield proxy
    finally:
        server.close()
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
