"""A server that always gives the same answer, in a process of its own, so that its CPU is in nobody's account.

It speaks the wire formats of `tests.support`, and keeps connections open: calls are measured, not handshakes.
"""

import asyncio
import multiprocessing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection

from tests.support.fault_wire import Asked, Ending, Wire

WORDS = "The moon turns once on its axis while it goes once around us, and so it always shows one face. "
PIECES = 100
"""Of a stream: some four characters each, as tokens are."""
_TEXT = (WORDS * 5)[: PIECES * 4]


@contextmanager
def canned_servers(wires: Mapping[str, Wire]) -> Iterator[dict[str, str]]:
    """One server a wire, until the block ends: its base address by the wire's name."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(dict(wires), theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


def _run(wires: Mapping[str, Wire], told: Connection) -> None:
    asyncio.run(_serve(wires, told))


async def _serve(wires: Mapping[str, Wire], told: Connection) -> None:
    roots: dict[str, str] = {}
    servers = []
    for name, wire in wires.items():
        servers.append(await asyncio.start_server(CannedAnswers(wire).serve, "127.0.0.1", 0))
        host, port = servers[-1].sockets[0].getsockname()
        roots[name] = f"http://{host}:{port}"
    told.send(roots)
    await asyncio.Event().wait()


class CannedAnswers:
    """The whole answer and the streamed one, as bytes."""

    def __init__(self, wire: Wire) -> None:
        whole, stream = (Asked(model="m", streamed=streamed, prompt="") for streamed in (False, True))
        body = wire.whole(_TEXT, Ending.WHOLE, whole).encode()
        self._whole = _head("application/json", f"content-length: {len(body)}") + body
        pieces = [wire.piece(_TEXT[start : start + 4], stream) for start in range(0, len(_TEXT), 4)]
        events = [*wire.opening(stream), *pieces, *wire.ending(Ending.WHOLE, stream), *wire.closing()]
        self._events = [f"{len(event.encode()):x}\r\n{event}\r\n".encode() for event in events]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, request after request."""
        try:
            while True:
                await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next(line.partition(":")[2] for line in head.split("\r\n") if line.startswith("content-length:"))
        body = await reader.readexactly(int(length))
        if b'"stream":true' not in body.replace(b" ", b"") and ":streamgeneratecontent" not in head:
            writer.write(self._whole)
            await writer.drain()
            return
        writer.write(_head("text/event-stream", "transfer-encoding: chunked"))
        for event in self._events:
            # A piece a packet, as tokens come.
            writer.write(event)
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()


def _head(content_type: str, length: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n{length}\r\nx-request-id: req_1\r\n\r\n".encode()
