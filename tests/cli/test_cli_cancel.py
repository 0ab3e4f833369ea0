"""`sluice cancel`: what it refuses, and what it writes."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from connectors.kafka.client import client_options
from connectors.kafka.reader import TopicReader
from connectors.kafka.topics_admin import create_topics
from connectors.settings import Settings
from schemas.codec import SingleObjectCodec
from schemas.command import Command
from tests.cli.conftest import Invoke
from tests.cli.processes import sluice

NOWHERE = "127.0.0.1:1"


@pytest.mark.integration
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "say what: "),
        (("not an id",), "request_id: "),
        (("--tenant", "", "--yes"), "tenant_id: "),
        (("a", "--timeout", "0"), "Usage: "),
    ],
    ids=" ".join,
)
async def test_what_cannot_work_is_refused(arguments: tuple[str, ...], said: str, stack_settings: Settings) -> None:
    """With exit code 2, and what is wrong with it."""
    await create_topics(stack_settings, stack_settings.topics.specs([]))
    ended = await sluice("cancel", *arguments, environment=environment(stack_settings))
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith(said)


def test_a_whole_tenant_is_asked_about(invoke: Invoke) -> None:
    """Without a yes nothing is sent: it ends before it looks for a Kafka."""
    result = invoke("cancel", "--tenant", "press", stdin=b"n\n", KAFKA_BOOTSTRAP=NOWHERE)
    assert result.exit_code == 1
    assert "Call off everything of the tenant press?" in result.stderr


def test_without_kafka_it_says_so(invoke: Invoke) -> None:
    """In a line, with exit code 4."""
    result = invoke("cancel", "a-1", KAFKA_BOOTSTRAP=NOWHERE)
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr.startswith(f"Kafka at {NOWHERE}: ")


@pytest.mark.integration
async def test_each_request_gets_a_command(stack_settings: Settings) -> None:
    """What --json prints is what stands in Kafka, with who asked and when."""
    settings = stack_settings
    await create_topics(settings, settings.topics.specs([]))
    arguments = ("cancel", "a-1", "a-2", "--tenant", "press", "--reason", "wrong prompt", "--json")
    async with TopicReader(client_options(settings), [settings.topics.commands]) as reader:
        ended = await sluice(*arguments, environment=environment(settings))
        records = await reader.rest()
    assert ended.exit_code == 0, ended.stderr
    printed = [Command.model_validate(json.loads(line)) for line in ended.stdout.splitlines()]
    written = [await SingleObjectCodec().decode(Command, record.value or b"") for record in records]
    assert {command.command_id: command for command in printed} == {command.command_id: command for command in written}
    assert [(command.request_id, command.tenant_id, command.reason) for command in printed] == [
        ("a-1", "press", "wrong prompt"),
        ("a-2", "press", "wrong prompt"),
    ]
    assert all(datetime.now(UTC) - command.issued_at < timedelta(minutes=2) for command in printed)
    assert all(command.issued_by for command in printed)


def environment(settings: Settings) -> dict[str, str]:
    return {"KAFKA_BOOTSTRAP": settings.kafka_bootstrap, "SLUICE_TOPIC_PREFIX": settings.topic_prefix}
