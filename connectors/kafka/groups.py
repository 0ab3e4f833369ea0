"""What Kafka knows of consumer groups."""

from collections.abc import Mapping
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient


async def committed_offsets(client_options: Mapping[str, Any], group: str) -> dict[TopicPartition, int]:
    """Where the group goes on, of each partition of which it has committed anything."""
    admin = AIOKafkaAdminClient(**client_options)
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(group)
    finally:
        await admin.close()
    return {partition: committed.offset for partition, committed in offsets.items() if committed.offset >= 0}


async def has_committed(client_options: Mapping[str, Any], group: str) -> bool:
    """Whether the group has ever committed an offset beyond the beginning of a partition."""
    return any(offset > 0 for offset in (await committed_offsets(client_options, group)).values())
