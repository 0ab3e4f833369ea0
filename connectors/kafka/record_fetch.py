"""Fetches single records by topic, partition and offset: the bytes that a request once came in.

A consumer reads on from where it is, so one record here and one there costs it a wait for each. Here each look-up is a
fetch request of its own, and those of one partition that come meanwhile are answered by the next one together.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import READ_UNCOMMITTED, PartitionRecords
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    NoError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords

FETCH_BYTES = 64 * 1024
"""Of one answer: a broker sends the first batch whole, however large it is (KIP-74), and more only up to here."""
RETRY_SECONDS = 0.1
CLOSED = "the record fetcher is closed"
MISSING_ANSWERS = 5
"""Metadata without a topic: a broker that has just started, or a topic just made. After so many it is not there."""


@dataclass(slots=True)
class _Wanted:
    """An offset that somebody waits for. Those who wait for the same one share the answer."""

    answer: "asyncio.Future[ConsumerRecord | None]"
    waiting: int = 0


@dataclass(slots=True)
class _Partition:
    """What is wanted of one partition, and the task that fetches it while there is any."""

    wanted: dict[int, _Wanted] = field(default_factory=dict)
    task: "asyncio.Task[None] | None" = None


class RecordFetcher:
    """An async context manager. It connects at the first `fetch`, and belongs to no consumer group.

    Safe for concurrent callers. It holds what is waited for and one answer for each partition, and nothing else.
    """

    def __init__(self, client_options: Mapping[str, Any], *, timeout_seconds: float = 10.0) -> None:
        self._options = dict(client_options)
        self._timeout_seconds = timeout_seconds
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._connecting = asyncio.Lock()
        self._client: AIOKafkaClient | None = None
        self._is_closed = False

    async def __aenter__(self) -> "RecordFetcher":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_closed = True
        tasks = [partition.task for partition in self._partitions.values() if partition.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for partition in self._partitions.values():  # of tasks that had not begun
            _give_up(partition, KafkaConnectionError(CLOSED))
        if self._client is not None:
            await self._client.close()

    async def fetch(self, topic: str, partition: int, offset: int) -> ConsumerRecord | None:
        """The record, or None: Kafka no longer has it, or never had a record there.

        Raises `KafkaError` after `timeout_seconds` at the latest, or at once where the broker says no: then nobody
        knows whether it is there.
        """
        if self._is_closed:
            raise KafkaConnectionError(CLOSED)
        where = TopicPartition(topic, partition)
        of_partition = self._partitions.setdefault(where, _Partition())
        wanted = of_partition.wanted.get(offset)
        if wanted is None:
            wanted = of_partition.wanted[offset] = _Wanted(asyncio.get_running_loop().create_future())
        if of_partition.task is None:
            of_partition.task = asyncio.create_task(self._serve(where, of_partition), name=f"fetch {where}")
        wanted.waiting += 1
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await asyncio.shield(wanted.answer)
        except TimeoutError as error:
            raise KafkaTimeoutError(
                f"no answer within {self._timeout_seconds:g} s on {topic}, partition {partition}, offset {offset}"
            ) from error
        finally:
            wanted.waiting -= 1
            if not wanted.waiting and of_partition.wanted.get(offset) is wanted:
                del of_partition.wanted[offset]

    async def _serve(self, where: TopicPartition, partition: _Partition) -> None:
        """Fetches until nothing of this partition is wanted any more."""
        problem: BaseException = KafkaConnectionError(CLOSED)
        try:
            while partition.wanted:
                await self._answer_some(where, partition.wanted)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait have to hear of it
            problem = error
        finally:
            partition.task = None
            self._partitions.pop(where, None)
            _give_up(partition, problem)

    async def _answer_some(self, where: TopicPartition, wanted: dict[int, _Wanted]) -> None:
        """Answers the lowest offset, and those above it that the same fetch brings."""
        lowest, highest = min(wanted), max(wanted)
        try:
            records, read_up_to = await self._read(where, lowest, highest)
        except TopicAuthorizationFailedError:
            raise
        except (KafkaError, OSError):
            # Kafka is away, or the partition has another leader: those who wait do so up to their time limit.
            await asyncio.sleep(RETRY_SECONDS)
            if self._client is not None:
                await self._client.force_metadata_update()
            return
        for offset in [offset for offset in wanted if lowest <= offset < read_up_to]:
            answer = wanted.pop(offset).answer
            if not answer.done():
                answer.set_result(records.get(offset))

    async def _read(self, where: TopicPartition, lowest: int, highest: int) -> tuple[dict[int, ConsumerRecord], int]:
        """Records by offset, and the offset up to which all are known now, which is above `lowest`."""
        client = await self._connected()
        leader = await self._leader(client, where)
        if leader is None:
            return {}, highest + 1
        # No waiting: what was once read is there, or it is gone.
        request = FetchRequest(
            0, 0, FETCH_BYTES, READ_UNCOMMITTED, [(where.topic, [(where.partition, lowest, FETCH_BYTES)])]
        )
        response = await client.send(leader, request)
        ((_, ((_, error_code, high_watermark, *rest),)),) = response.topics
        error = for_code(error_code)
        if error is OffsetOutOfRangeError:
            return {}, lowest + 1
        if error is not NoError:
            raise error(f"{where.topic}, partition {where.partition}")
        found = PartitionRecords(where, MemoryRecords(rest[-1]), None, lowest, None, None, True, READ_UNCOMMITTED)
        records: dict[int, ConsumerRecord] = {}
        for record in found:
            records[record.offset] = record
            if record.offset >= highest:
                break
        read_up_to: int = found.next_fetch_offset
        if read_up_to > lowest:
            return records, read_up_to
        if lowest >= high_watermark:
            return {}, highest + 1
        # A broker that holds back, for a quota, answers with nothing (KIP-219).
        raise KafkaTimeoutError("the broker sent nothing")

    async def _leader(self, client: AIOKafkaClient, where: TopicPartition) -> int | None:
        """The broker to ask, or None where the topic or partition does not exist. Raises `KafkaError`."""
        client.add_topic(where.topic)
        for _ in range(MISSING_ANSWERS):
            if where.topic in client.cluster.unauthorized_topics:
                raise TopicAuthorizationFailedError(where.topic)
            if where.partition in (client.cluster.partitions_for_topic(where.topic) or ()):
                leader = client.cluster.leader_for_partition(where)
                if leader not in {None, -1}:
                    return int(leader)
            if not await client.force_metadata_update():
                raise KafkaConnectionError("no broker answers")
            await asyncio.sleep(RETRY_SECONDS)
        if where.partition in (client.cluster.partitions_for_topic(where.topic) or ()):
            raise UnknownTopicOrPartitionError(f"{where.topic}, partition {where.partition} has no leader")
        return None

    async def _connected(self) -> AIOKafkaClient:
        async with self._connecting:
            if self._client is None:
                # No request outlasts those who wait for it.
                client = AIOKafkaClient(**self._options, request_timeout_ms=int(self._timeout_seconds * 1000))
                try:
                    await client.bootstrap()
                except BaseException:
                    await client.close()
                    raise
                self._client = client
            return self._client


def _give_up(partition: _Partition, problem: BaseException) -> None:
    for wanted in partition.wanted.values():
        if not wanted.answer.done():
            wanted.answer.set_exception(problem)
            wanted.answer.exception()  # heard of, also where nobody waits any more
    partition.wanted.clear()
