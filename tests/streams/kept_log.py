"""A consumer of one topic in memory, with positions and committed offsets as aiokafka keeps them."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from schemas.envelope import Header
from tests.streams.world import START

WRITTEN_MS = int(START.timestamp() * 1000)


def kept_record(
    topic: str, offset: int, *, key: bytes | None, value: bytes, headers: Iterable[Header] = ()
) -> SimpleNamespace:
    """A record as aiokafka gives it."""
    return SimpleNamespace(
        topic=topic, partition=0, offset=offset, timestamp=WRITTEN_MS, key=key, value=value, headers=tuple(headers)
    )


class KeptLogConsumer:
    """Reads one partition. `on_poll` is called before each poll, and may write to `records`."""

    def __init__(self, topic: str, *, on_poll: Callable[[], None] = lambda: None) -> None:
        self.partition = TopicPartition(topic, 0)
        self.records: list[Any] = []
        self.first = 0
        self.next_offset = 0
        self.saved: int | None = None
        self._on_poll = on_poll
        self.on_commit: Callable[[], None] = lambda: None

    def add(self, *, key: bytes | None = None, value: bytes = b"", headers: Iterable[Header] = ()) -> None:
        self.records.append(kept_record(self.partition.topic, len(self.records), key=key, value=value, headers=headers))

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset({self.partition})

    def partitions_for_topic(self, _topic: str) -> set[int]:
        return {0}

    async def getmany(self, *, timeout_ms: int, max_records: int = 1000) -> dict[TopicPartition, list[Any]]:
        await asyncio.sleep(0)
        self._on_poll()
        found = self.records[self.next_offset : self.next_offset + max_records]
        self.next_offset += len(found)
        return {self.partition: found} if found else {}

    async def position(self, _partition: TopicPartition) -> int:
        return self.next_offset

    async def committed(self, _partition: TopicPartition) -> int | None:
        await asyncio.sleep(0)
        return self.saved

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, len(self.records))

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, self.first)

    def seek(self, _partition: TopicPartition, offset: int) -> None:
        self.next_offset = offset

    async def seek_to_beginning(self, *_partitions: TopicPartition) -> None:
        self.next_offset = self.first

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        self.saved = offsets[self.partition].offset
        self.on_commit()
