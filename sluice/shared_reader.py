"""One background reader for many who wait."""

import asyncio
from collections.abc import Awaitable, Callable

from connectors.kafka.reader import TopicReader


class SharedReader:
    """`start` it before something is waited for: what is written from then on is read. `close` it at the end.

    `read` gets the open reader, and runs until it is cancelled. What it raises goes to `fail`, which tells whoever
    waits; the next `start` reads anew. `name` is that of the task.
    """

    def __init__(
        self,
        open_reader: Callable[[], TopicReader],
        *,
        read: Callable[[TopicReader], Awaitable[None]],
        fail: Callable[[Exception], None],
        name: str,
    ) -> None:
        self._open_reader = open_reader
        self._read = read
        self._fail = fail
        self._name = name
        self._starting = asyncio.Lock()
        self._reader: TopicReader | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        async with self._starting:
            if self._reading is not None and not self._reading.done():
                return
            await self._stop()
            self._reader = await self._open_reader().__aenter__()
            self._reading = asyncio.create_task(self._run(self._reader), name=self._name)

    async def close(self) -> None:
        async with self._starting:
            await self._stop()

    async def _run(self, reader: TopicReader) -> None:
        try:
            await self._read(reader)
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            self._fail(error)

    async def _stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
            self._reading = None
        if self._reader is not None:
            reader, self._reader = self._reader, None
            await reader.__aexit__()
