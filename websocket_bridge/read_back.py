"""Reads Kafka further back than the log of recent happenings reaches: once, for all clients that wait for it.

Bounded in records, bytes and time. What does not fit is not read, and those clients get a gap and a snapshot.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from schemas.codec import Codec, CodecError
from schemas.delta import Delta
from schemas.result import LLMResult
from schemas.status import StatusEvent
from websocket_bridge.board import Board
from websocket_bridge.frames import Body, DeltaRun, Status, Summary, Void
from websocket_bridge.hub import Hub
from websocket_bridge.position import Place
from websocket_bridge.recent import OVERHEAD_BYTES, Spot
from websocket_bridge.resuming import DELTAS, STATUS
from websocket_bridge.subjects import Identity, Subject

MAX_RECORDS = 50_000
MAX_SECONDS = 8

log = structlog.get_logger(__name__)

Older = tuple[Spot, Body, tuple[Subject, ...]]


class BackReader:
    """`topics` are numbered as in tokens."""

    def __init__(self, hub: Hub, codec: Codec, client_options: Mapping[str, Any], topics: Sequence[str]) -> None:
        self._hub = hub
        self._codec = codec
        self._client_options = dict(client_options)
        self._topics = topics

    async def read(self, wanted: Mapping[Place, int]) -> None:
        """Reads from `wanted` to where the log begins, adds it to the log, and answers those who waited."""
        floors = {place: self._hub.memory.recent.floors[place] for place in wanted}
        count = sum(floors[place] - wanted[place] for place in wanted)
        if count <= MAX_RECORDS and self._hub.memory.recent.has_room_for(count * OVERHEAD_BYTES):
            try:
                async with asyncio.timeout(MAX_SECONDS):
                    await self._read(wanted, floors)
            except (TimeoutError, KafkaError, OSError) as error:
                log.warning("bridge_cannot_read_back", records=count, reason=f"{type(error).__name__}: {error}")
        self._hub.resuming.was_tried(wanted)
        self._hub.flush()

    async def _read(self, wanted: Mapping[Place, int], floors: Mapping[Place, int]) -> None:
        parts = {TopicPartition(self._topics[topic], number): (topic, number) for topic, number in wanted}
        consumer = AIOKafkaConsumer(**self._client_options, group_id=None, enable_auto_commit=False)
        await consumer.start()
        try:
            consumer.assign(list(parts))
            begins = await consumer.beginning_offsets(list(parts))
            starts = {parts[part]: max(begin, wanted[parts[part]]) for part, begin in begins.items()}
            for part, place in parts.items():
                consumer.seek(part, starts[place])
            records = await self._records(consumer, parts, floors)
        finally:
            await consumer.stop()
        if records is None:
            return
        older = await Chunk(self._codec, self._hub.memory.board).of(records)
        recent = self._hub.memory.recent
        still = all(recent.floors[place] == floor for place, floor in floors.items())
        added = still and recent.prepend(starts, older)
        log.info("bridge_read_back", records=len(records), added=added)

    async def _records(
        self, consumer: AIOKafkaConsumer, parts: Mapping[TopicPartition, Place], floors: Mapping[Place, int]
    ) -> list[tuple[Spot, ConsumerRecord]] | None:
        """Up to the floors; oldest first over all partitions, as far as their clocks agree. None: too much."""
        found: list[tuple[int, Spot, ConsumerRecord]] = []
        latest: dict[Place, int] = {}
        size_bytes = 0
        left = set(parts)
        while left:
            for part, records in (await consumer.getmany(timeout_ms=200, max_records=500)).items():
                place = parts[part]
                for record in records:
                    if record.offset < floors[place]:
                        latest[place] = max(record.timestamp, latest.get(place, 0))
                        found.append((latest[place], Spot(place, record.offset), record))
                        size_bytes += len(record.value or b"")
            if not self._hub.memory.recent.has_room_for(size_bytes):
                break  # what there is will not be taken
            left = {part for part in left if await consumer.position(part) < floors[parts[part]]}
        if left:
            return None
        found.sort(key=lambda entry: (entry[0], entry[1].place[0] != DELTAS))
        return [(spot, record) for _, spot, record in found]


class Chunk:
    """Records of before, as what is told of them: monotone in itself, as the board makes the rest."""

    def __init__(self, codec: Codec, board: Board) -> None:
        self._codec = codec
        self._board = board
        self._versions: dict[tuple[str, int], int] = {}
        self._attempts: dict[str, tuple[int, int]] = {}
        self._known: dict[str, Identity] = {}

    async def of(self, records: Sequence[tuple[Spot, ConsumerRecord]]) -> list[Older]:
        older: list[Older] = []
        for spot, record in records:
            try:
                bodies = await self._bodies(spot.place[0], record.value or b"")
            except CodecError:
                continue
            older.extend((spot, body, body.who.subjects) for body in bodies)
        return older

    async def _bodies(self, topic: int, value: bytes) -> list[Body]:
        if topic == STATUS:
            status = Status.of(await self._codec.decode(StatusEvent, value))
            self._known[status.who.request_id] = status.who
            return [status] if self._is_newer(status, topic) else []
        if topic == DELTAS:
            return self._delta(await self._codec.decode(Delta, value))
        summary = Summary.of(await self._codec.decode(LLMResult, value))
        return [summary] if self._is_newer(summary, topic) else []

    def _is_newer(self, body: Status | Summary, topic: int) -> bool:
        key = (body.who.request_id, topic)
        if body.version <= self._versions.get(key, 0):
            return False
        self._versions[key] = body.version
        return True

    def _delta(self, delta: Delta) -> list[Body]:
        attempt, next_seq = self._attempts.get(delta.request_id, (0, 0))
        if (delta.attempt, delta.seq) < (attempt, next_seq):
            return []
        self._attempts[delta.request_id] = (delta.attempt, delta.seq + 1)
        who = self._known.get(delta.request_id)
        if who is None:
            status = self._board.get(delta.request_id)
            who = status.who if status is not None else Identity(delta.request_id, delta.tenant_id)
        run = DeltaRun(who, delta.attempt, delta.seq, delta.seq, delta.text)
        if 0 < attempt < delta.attempt:
            return [Void(who, attempt, delta.attempt), run]
        return [run]
