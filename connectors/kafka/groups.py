"""What Kafka knows of consumer groups."""

from collections.abc import Mapping
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient


async def has_committed(client_options: Mapping[str, Any], group: str) -> bool:
    """Whether the group has ever committed an offset beyond the beginning of a partition."""
    admin = AIOKafkaAdminClient(**client_options)
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(group)
    finally:
        await admin.close()
    return any(committed.offset > 0 for committed in offsets.values())
