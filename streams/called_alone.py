"""Which requests a worker may have called alone, while the shared state was away, without having told of it since.

It leaves word of such calls with the offsets of its lane (`connectors/kafka/own_calls.py`), and who gets its
partition next counts them as lost. Ends from outside may come before: they have to look for that word as well.
"""

from collections import defaultdict
from collections.abc import Sequence

from aiokafka import TopicPartition
from aiokafka.partitioner import DefaultPartitioner

from connectors.kafka.client import client_options
from connectors.kafka.groups import commits_of
from connectors.kafka.own_calls import bound_of
from connectors.kafka.reader import partitions_of
from connectors.settings import Settings
from policy.summary import Summary


class CalledAlone:
    """Asks Kafka anew each time: one request for each provider."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._partitioner = DefaultPartitioner()

    async def among(self, queued: Sequence[Summary]) -> frozenset[str]:
        """Ids of those that may have been called. The word covers a whole partition: most of them were not."""
        by_provider: dict[str, list[str]] = defaultdict(list)
        for summary in queued:
            by_provider[summary.provider].append(summary.request_id)
        found: set[str] = set()
        for provider, request_ids in by_provider.items():
            found |= await self._among(provider, request_ids)
        return frozenset(found)

    async def _among(self, provider: str, request_ids: Sequence[str]) -> set[str]:
        options = client_options(self._settings)
        commits = await commits_of(options, self._settings.lane_group(provider))
        called = {partition for partition, commit in commits.items() if commit.offset < bound_of(commit.metadata or "")}
        if not called:
            return set()
        numbers: dict[str, list[int]] = defaultdict(list)
        for topic, number in await partitions_of(options, sorted({partition.topic for partition in called})):
            numbers[topic].append(number)
        return {
            request_id
            for request_id in request_ids
            # Its priority, and so its topic, is not in the summary.
            if any(
                TopicPartition(topic, self._partition(request_id, all_)) in called for topic, all_ in numbers.items()
            )
        }

    def _partition(self, request_id: str, partitions: list[int]) -> int:
        partitions = sorted(partitions)
        return int(self._partitioner(request_id.encode(), partitions, partitions))


async def nobody(_queued: Sequence[Summary]) -> frozenset[str]:
    """Where there is no other worker."""
    return frozenset()
