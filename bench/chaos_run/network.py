"""The way to a provider: a TCP proxy that can be cut, fall silent, or lose what comes back."""

import asyncio
from contextlib import suppress
from enum import StrEnum

_CHUNK_BYTES = 64 * 1024


class Network(StrEnum):
    """How the way is."""

    OPEN = "open"
    REFUSED = "refused"
    """Connections break, and new ones are closed at once."""
    SILENT = "silent"
    """Connections stay, and nothing passes: nobody is told."""
    ANSWERS_LOST = "answers_lost"
    """Requests arrive, and the connection breaks when the answer begins: the provider was paid, and nobody knows."""


class Proxy:
    """Listens on 127.0.0.1 and hands on to a port there. `set` takes effect on connections that exist, too."""

    def __init__(self, *, port: int, upstream_port: int) -> None:
        self._port = port
        self._upstream_port = upstream_port
        self._network = Network.OPEN
        self._passing = asyncio.Event()
        self._passing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._break_all()

    def set(self, network: Network) -> None:
        self._network = network
        if network is Network.SILENT:
            self._passing.clear()
        else:
            self._passing.set()
        if network is Network.REFUSED:
            self._break_all()

    def _break_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self._network is Network.REFUSED:
                return
            with suppress(OSError):
                upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._upstream_port)
                self._writers.add(upstream)
                try:
                    await self._relay_both(reader, writer, upstream_reader, upstream)
                finally:
                    self._writers.discard(upstream)
                    upstream.transport.abort()
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _relay_both(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream_reader: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
    ) -> None:
        """Until either side closes: HTTP has no use for half of a connection."""
        there = asyncio.create_task(self._relay(reader, upstream, answers=False))
        back = asyncio.create_task(self._relay(upstream_reader, writer, answers=True))
        try:
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            there.cancel()
            back.cancel()
            await asyncio.wait({there, back})

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK_BYTES):
                await self._passing.wait()
                if answers and self._network is Network.ANSWERS_LOST:
                    return
                writer.write(chunk)
                await writer.drain()
