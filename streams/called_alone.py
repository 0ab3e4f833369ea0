"""Which requests a worker may have called alone, while the shared state was away, without having told of it since.

It leaves word of such calls with the offsets of its lane (`connectors/kafka/own_calls.py`), and who gets its partition
next counts them as lost. Ends from outside may come before: they have to look for that word as well.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import structlog
from aiokafka.errors import KafkaError

from connectors.kafka.client import client_options
from connectors.kafka.groups import commits_of
from connectors.kafka.own_calls import bound_of
from connectors.kafka.reader import partition_of, partitions_of
from connectors.settings import Settings
from policy.summary import Summary

log = structlog.get_logger(__name__)

ASK_SECONDS = 5.0


class CalledAlone:
    """Asks Kafka anew each time: one request for each provider."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def among(self, queued: Sequence[Summary]) -> Mapping[str, bool]:
        """By id, whether each may have been called; without those of which Kafka does not tell in time.

        The word covers a whole partition: most of them were not.
        """
        by_provider: dict[str, list[str]] = defaultdict(list)
        for summary in queued:
            by_provider[summary.provider].append(summary.request_id)
        found = await asyncio.gather(*(self._of_provider(provider, ids) for provider, ids in by_provider.items()))
        return {request_id: called for part in found for request_id, called in part.items()}

    async def _of_provider(self, provider: str, request_ids: Iterable[str]) -> dict[str, bool]:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                partitions = await self._called_partitions(provider)
        except (KafkaError, TimeoutError) as error:
            log.warning("calls_alone_not_known", provider=provider, error=repr(error))
            return {}
        # Its priority, and so its topic, is not in the summary.
        return {
            request_id: any(partition_of(request_id, numbers) in called for numbers, called in partitions)
            for request_id in request_ids
        }

    async def _called_partitions(self, provider: str) -> list[tuple[set[int], set[int]]]:
        """Of each topic with word in it: the numbers of its partitions, and of those that the word is about."""
        options = client_options(self._settings)
        commits = await commits_of(options, self._settings.lane_group(provider))
        called: dict[str, set[int]] = defaultdict(set)
        for partition, commit in commits.items():
            if commit.offset < bound_of(commit.metadata or ""):
                called[partition.topic].add(partition.partition)
        if not called:
            return []
        numbers: dict[str, set[int]] = defaultdict(set)
        for partition in await partitions_of(options, sorted(called)):
            numbers[partition.topic].add(partition.partition)
        return [(numbers[topic], called[topic]) for topic in called]
