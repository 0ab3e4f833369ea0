"""Topics are created as stated, on a real Kafka, and differences are told and left alone."""

import asyncio
import json
from dataclasses import replace

import pytest
from aiokafka.errors import KafkaConnectionError
from click.testing import Result
from typer.testing import CliRunner

from connectors.kafka.topics_admin import Difference, TopicStatus, create_topics, describe
from connectors.settings import Settings
from schemas.topics import TopicSpec
from sluice.commands import topics
from sluice.stack.ports import choose

pytestmark = pytest.mark.integration

PROVIDERS = ["simulated", "other"]


@pytest.fixture
def specs(stack_settings: Settings) -> list[TopicSpec]:
    return stack_settings.topics.specs(PROVIDERS)


def statuses(outcomes: list[topics.TopicOutcome]) -> set[TopicStatus]:
    return {outcome.status for outcome in outcomes}


async def test_topics_are_created_as_stated(stack_settings: Settings, specs: list[TopicSpec]) -> None:
    """Partitions, retention, cleanup and size are those of the contract, in the order in which they were asked for."""
    outcomes = await create_topics(stack_settings, specs)
    assert [(outcome.name, outcome.status) for outcome in outcomes] == [
        (spec.name, TopicStatus.CREATED) for spec in specs
    ]
    assert statuses(await describe(stack_settings, specs)) == {TopicStatus.EXISTING}


async def test_creating_again_changes_nothing(stack_settings: Settings, specs: list[TopicSpec]) -> None:
    """A deployment may run it at each start."""
    await create_topics(stack_settings, specs)
    assert statuses(await create_topics(stack_settings, specs)) == {TopicStatus.EXISTING}


async def test_only_what_is_missing_is_created(stack_settings: Settings, specs: list[TopicSpec]) -> None:
    """A new provider adds its lane, a topic for each priority, to a deployment that runs."""
    await create_topics(stack_settings, stack_settings.topics.specs(PROVIDERS[:1]))
    created = [o.name for o in await create_topics(stack_settings, specs) if o.status is TopicStatus.CREATED]
    assert created == list(stack_settings.topics.lanes(PROVIDERS[1]).values())


async def test_what_differs_is_told_and_left_alone(stack_settings: Settings, specs: list[TopicSpec]) -> None:
    """Every setting that is not as stated is named, with what was wanted and what was found."""
    first = replace(specs[0], partitions=2, retention_ms=1000, cleanup="compact", max_message_bytes=9000)
    await create_topics(stack_settings, [first])
    for _ in range(2):
        (outcome,) = await create_topics(stack_settings, specs[:1])
        assert outcome.status is TopicStatus.DIFFERS
        assert outcome.differences == (
            Difference(setting="partitions", wanted=str(specs[0].partitions), found="2"),
            Difference(setting="retention.ms", wanted=str(specs[0].retention_ms), found="1000"),
            Difference(setting="cleanup.policy", wanted="delete", found="compact"),
            Difference(setting="max.message.bytes", wanted=str(specs[0].max_message_bytes), found="9000"),
        )


async def test_the_order_of_cleanup_policies_is_no_difference(stack_settings: Settings, specs: list[TopicSpec]) -> None:
    """`delete,compact` is what `compact,delete` is."""
    compacted = next(spec for spec in specs if spec.cleanup == "compact,delete")
    reordered = replace(compacted, cleanup="delete,compact")  # type: ignore[arg-type]
    await create_topics(stack_settings, [reordered])
    assert statuses(await describe(stack_settings, [compacted])) == {TopicStatus.EXISTING}


async def test_a_stated_replication_is_compared(stack_settings: Settings, specs: list[TopicSpec]) -> None:
    """With the broker's default any replication is right; a stated one has to be met."""
    await create_topics(stack_settings, specs[:1])
    three = stack_settings.model_copy(update={"topic_replication": 3})
    (outcome,) = await describe(three, specs[:1])
    assert outcome.differences == (Difference(setting="replication", wanted="3", found="1"),)


async def test_a_dry_run_creates_nothing(stack_settings: Settings, specs: list[TopicSpec]) -> None:
    """It says what is missing, and leaves it missing."""
    for _ in range(2):
        assert statuses(await create_topics(stack_settings, specs, dry_run=True)) == {TopicStatus.MISSING}


@pytest.mark.parametrize("dry_run", [False, True])
async def test_what_the_broker_refuses_is_told_and_the_rest_created(
    stack_settings: Settings, specs: list[TopicSpec], dry_run: bool
) -> None:
    """One topic that cannot be created keeps none of the others back, and the broker's reason is passed on."""
    wrong = replace(specs[0], name=f"{stack_settings.topic_prefix}a name with blanks")
    refused, other = await create_topics(stack_settings, [wrong, specs[1]], dry_run=dry_run)
    assert refused.status is TopicStatus.FAILED
    assert "invalid" in (refused.problem or "")
    assert other.status is (TopicStatus.MISSING if dry_run else TopicStatus.CREATED)


async def test_two_creators_at_once_do_not_fail(stack_settings: Settings, specs: list[TopicSpec]) -> None:
    """Replicas that start together both end well, and each topic is created once."""
    both = await asyncio.gather(*(create_topics(stack_settings, specs) for _ in range(2)))
    assert statuses([*both[0], *both[1]]) <= {TopicStatus.CREATED, TopicStatus.EXISTING}
    created = [o.name for outcomes in both for o in outcomes if o.status is TopicStatus.CREATED]
    assert sorted(created) == sorted(spec.name for spec in specs)


async def test_a_kafka_that_is_away_is_an_error() -> None:
    """Nobody is told that topics are missing because nobody answered."""
    (port,) = choose(1)
    away = Settings(kafka_bootstrap=f"127.0.0.1:{port}")
    with pytest.raises(KafkaConnectionError):
        await describe(away, away.topics.specs(PROVIDERS))


class Command:
    """`sluice topics` on the test's deployment."""

    def __init__(self, settings: Settings) -> None:
        self._environment = {
            "KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
            "SLUICE_TOPIC_PREFIX": settings.topic_prefix,
            "SLUICE_TOPIC_PARTITIONS": "2",
        }

    def __call__(self, *arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(topics.app, arguments, env=self._environment | environment)


@pytest.fixture
def command(stack_settings: Settings) -> Command:
    return Command(stack_settings)


def states(result: Result) -> dict[str, str]:
    return {topic["name"]: topic["status"] for topic in json.loads(result.stdout)["topics"]}


def test_the_command_creates_and_lists(command: Command, stack_settings: Settings) -> None:
    """Missing at first (exit code 3), then created, then as stated (exit code 0), in JSON and as a table."""
    names = {spec.name for spec in stack_settings.topics.specs(["simulated"])}
    missing = command("list", "--json")
    assert (missing.exit_code, states(missing)) == (3, dict.fromkeys(names, "missing"))
    assert states(command("create", "--dry-run", "--json")) == dict.fromkeys(names, "missing")
    created = command("create", "--json")
    assert (created.exit_code, states(created)) == (0, dict.fromkeys(names, "created"))
    listed = command("list")
    assert listed.exit_code == 0
    lines = listed.stdout.splitlines()[1:]
    assert {line.split()[0] for line in lines} == names
    assert all(" existing " in line for line in lines)


def test_the_command_tells_what_differs(command: Command, stack_settings: Settings) -> None:
    """More partitions than there are: exit code 3, a line for each topic, and no topic altered."""
    command("create")
    differing = command("create", "--partitions", "5")
    assert differing.exit_code == 3
    assert f"{stack_settings.topics.results}: partitions is 2, stated is 5" in differing.stdout
    assert command("list").exit_code == 0


def test_the_command_says_why_kafka_cannot_be_used(command: Command) -> None:
    """Exit code 1, one line on standard error with the address and what to check."""
    (port,) = choose(1)
    result = command("create", KAFKA_BOOTSTRAP=f"127.0.0.1:{port}")
    assert result.exit_code == 1
    assert f"Kafka at 127.0.0.1:{port}: " in result.stderr
    assert "Check KAFKA_BOOTSTRAP" in result.stderr
    assert result.stdout == ""


def test_the_command_refuses_wrong_settings(command: Command) -> None:
    """Exit code 2, with the setting's name, before anything connects."""
    result = command("create", SLUICE_TOPIC_PARTITIONS="many")
    assert result.exit_code == 2
    assert "TOPIC_PARTITIONS" in result.stderr


@pytest.mark.parametrize("name", ["create", "list"])
def test_help_has_examples_and_exit_codes(command: Command, name: str) -> None:
    """A script's author needs nothing else."""
    told = command(name, "--help").stdout
    assert "Examples:" in told
    assert "Exit codes:" in told
