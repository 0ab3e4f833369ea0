"""A plain consumer of a group, for stages that read in batches and commit by themselves."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError
from aiokafka.structs import OffsetAndMetadata

MAX_FETCH_BYTES = 8 * 1024 * 1024
FETCH_MAX_WAIT_MS = 100
_REBALANCED = (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, on_assigned: Callable[[], None]) -> None:
        self._on_assigned = on_assigned

    async def on_partitions_revoked(self, revoked: object) -> None:
        """Nothing is held back that would have to be given up."""

    async def on_partitions_assigned(self, assigned: object) -> None:  # noqa: ARG002 - aiokafka's signature
        self._on_assigned()


def group_consumer(
    client_options: Mapping[str, Any],
    *,
    group: str,
    topics: Sequence[str],
    session_timeout_seconds: float,
    on_assigned: Callable[[], None] = lambda: None,
) -> AIOKafkaConsumer:
    """A consumer to be started. It begins at the beginning, and commits only what `commit_positions` is given."""
    consumer = AIOKafkaConsumer(
        **client_options,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
        max_partition_fetch_bytes=MAX_FETCH_BYTES,
        session_timeout_ms=int(session_timeout_seconds * 1000),
        heartbeat_interval_ms=int(min(3.0, session_timeout_seconds / 3) * 1000),
        # Waiting for Redis or Kafka may take long; the heartbeat goes on beside it.
        max_poll_interval_ms=86_400_000,
    )
    consumer.subscribe(topics=list(topics), listener=_Listener(on_assigned))
    return consumer


async def commit_positions(consumer: AIOKafkaConsumer, positions: Mapping[TopicPartition, int]) -> bool:
    """Commits the next offset of each partition. False: they were assigned anew, and come again from an older one."""
    assigned = consumer.assignment()
    wanted = {part: OffsetAndMetadata(offset, "") for part, offset in positions.items() if part in assigned}
    if not wanted:
        return not positions
    try:
        await consumer.commit(wanted)
    except _REBALANCED:
        return False
    return True


async def rewind(consumer: AIOKafkaConsumer) -> None:
    """Back to what was committed: what was read after it, and not worked on, is read again."""
    for partition in consumer.assignment():
        offset = await consumer.committed(partition)
        if partition not in consumer.assignment():
            continue
        if offset is None:
            await consumer.seek_to_beginning(partition)
        else:
            consumer.seek(partition, offset)
