"""Creates topics as the contract states them, and says where those that exist differ. Nothing is ever altered.

A difference is for a person to judge: more partitions may be wanted, and fewer cannot be had.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import NoError, TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code

from connectors.kafka.client import client_options
from connectors.settings import Settings
from schemas.topics import TopicSpec

_VISIBLE_TIMEOUT_SECONDS = 15.0
_POLL_SECONDS = 0.05


class TopicStatus(StrEnum):
    """How a topic stands to what was asked for. `missing` comes from `describe` and from a dry run alone."""

    CREATED = "created"
    EXISTING = "existing"
    DIFFERS = "differs"
    MISSING = "missing"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One setting of an existing topic that is not as stated."""

    setting: str
    wanted: str
    found: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicOutcome:
    """What became of one topic. `problem` says why it failed, in the broker's words."""

    name: str
    status: TopicStatus
    differences: tuple[Difference, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """A topic as the cluster has it."""

    partitions: int
    replication: int
    has_leaders: bool
    config: dict[str, str]


async def create_topics(settings: Settings, specs: Iterable[TopicSpec], *, dry_run: bool = False) -> list[TopicOutcome]:
    """Creates what is missing, compares what exists, and returns once the new topics can be written to.

    With `dry_run` the broker only checks whether it would. Raises `aiokafka.errors.KafkaError`.
    """
    wanted = list(specs)
    async with _admin(settings) as admin:
        outcomes = {outcome.name: outcome for outcome in await _compare(admin, wanted, settings.topic_replication)}
        missing = [spec for spec in wanted if outcomes[spec.name].status is TopicStatus.MISSING]
        problems = await _create(admin, missing, settings.topic_replication, dry_run=dry_run)
        raced = []
        for spec in missing:
            error, reason = problems[spec.name]
            if error is TopicAlreadyExistsError:
                raced.append(spec)
            elif error is not NoError:
                outcomes[spec.name] = TopicOutcome(name=spec.name, status=TopicStatus.FAILED, problem=reason)
            elif not dry_run:
                outcomes[spec.name] = TopicOutcome(name=spec.name, status=TopicStatus.CREATED)
        if not dry_run:
            await _until_visible(admin, [spec.name for spec in missing if problems[spec.name][0] is NoError])
        # Somebody else created these in between.
        for outcome in await _compare(admin, raced, settings.topic_replication):
            outcomes[outcome.name] = outcome
    return [outcomes[spec.name] for spec in wanted]


async def describe(settings: Settings, specs: Iterable[TopicSpec]) -> list[TopicOutcome]:
    """How each topic stands: existing, differs or missing. Raises `aiokafka.errors.KafkaError`."""
    async with _admin(settings) as admin:
        return await _compare(admin, list(specs), settings.topic_replication)


@asynccontextmanager
async def _admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**client_options(settings))
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def _compare(admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec], replication: int) -> list[TopicOutcome]:
    found = await _find(admin, (spec.name for spec in specs))
    return [_outcome(spec, found.get(spec.name), replication) for spec in specs]


def _outcome(spec: TopicSpec, found: _Found | None, replication: int) -> TopicOutcome:
    if found is None:
        return TopicOutcome(name=spec.name, status=TopicStatus.MISSING)
    pairs = [("partitions", str(spec.partitions), str(found.partitions))]
    if replication > 0:
        pairs.append(("replication", str(replication), str(found.replication)))
    pairs += [(name, value, found.config.get(name, "unknown")) for name, value in spec.config.items()]
    differences = tuple(
        Difference(setting=setting, wanted=wanted, found=actual)
        for setting, wanted, actual in pairs
        if _as_set(wanted) != _as_set(actual)
    )
    return TopicOutcome(
        name=spec.name, status=TopicStatus.DIFFERS if differences else TopicStatus.EXISTING, differences=differences
    )


def _as_set(value: str) -> set[str]:
    """`compact,delete` is `delete,compact`."""
    return set(value.split(","))


async def _find(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, _Found]:
    wanted = set(names)
    if not wanted:
        return {}
    # All topics are asked for: a broker may create those that are asked for by name.
    described = [topic for topic in await admin.describe_topics() if topic["topic"] in wanted and topic["partitions"]]
    configs = await _configs(admin, [topic["topic"] for topic in described])
    return {
        topic["topic"]: _Found(
            partitions=len(topic["partitions"]),
            replication=len(topic["partitions"][0]["replicas"]),
            has_leaders=all(partition["leader"] >= 0 for partition in topic["partitions"]),
            config=configs[topic["topic"]],
        )
        for topic in described
        if topic["topic"] in configs
    }


async def _configs(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    found: dict[str, dict[str, str]] = {}
    for response in await admin.describe_configs(resources):
        for error_code, _, _, name, entries in response.resources:
            error = for_code(error_code)
            if error is UnknownTopicOrPartitionError:
                continue
            if error is not NoError:
                raise error(name)
            found[name] = {entry[0]: entry[1] for entry in entries}
    return found


async def _create(
    admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec], replication: int, *, dry_run: bool
) -> dict[str, tuple[Any, str]]:
    """The broker's verdict on each topic: aiokafka's class of error, and the message."""
    if not specs:
        return {}
    response = await admin.create_topics([_new_topic(spec, replication) for spec in specs], validate_only=dry_run)
    verdicts = {}
    for name, error_code, message in response.topic_errors:
        error = for_code(error_code)
        verdicts[name] = (error, message or getattr(error, "description", "") or error.__name__)
    return verdicts


def _new_topic(spec: TopicSpec, replication: int) -> NewTopic:
    topic = NewTopic(spec.name, num_partitions=spec.partitions, replication_factor=1, topic_configs=spec.config)
    # aiokafka refuses -1, the broker's default, though brokers have taken it since 2.4 (KIP-464).
    topic.replication_factor = replication
    return topic


async def _until_visible(admin: AIOKafkaAdminClient, names: list[str]) -> None:
    """Waits until every partition has a leader, so that the first record need not wait for it."""
    async with asyncio.timeout(_VISIBLE_TIMEOUT_SECONDS):
        while True:
            found = await _find(admin, names)
            if all(name in found and found[name].has_leaders for name in names):
                return
            await asyncio.sleep(_POLL_SECONDS)
