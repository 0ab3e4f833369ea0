"""The examples do what the README says of them, against a real Kafka and Redis."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from connectors.kafka.client import client_options
from connectors.kafka.producer import Outgoing, Producer
from connectors.kafka.reader import TopicReader
from connectors.settings import Settings
from schemas import LLMRequest
from schemas.codec import decode_json
from schemas.vocabulary import Priority, State
from tests.integration.system import System, running_system

EXAMPLES = Path(__file__).parents[2] / "examples"
TIMEOUT_SECONDS = 60


@pytest.fixture
async def system(stack_settings: Settings, tmp_path: Path) -> AsyncIterator[System]:
    """Intake and a lane. One partition, so that the examples read records in the order in which they were written."""
    settings = stack_settings.model_copy(update={"topic_partitions": 1})
    async with running_system(settings, tmp_path) as system:
        await asyncio.gather(system.start("intake"), system.start("lane", "simulated"))
        yield system


async def run(system: System, name: str, *arguments: str) -> str:
    """What an example prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / name),
        *arguments,
        env={**os.environ, **system.environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            out, problems = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, problems.decode()
    return out.decode()


async def repeat_results(settings: Settings) -> None:
    """Writes every result once more, as a worker does that died before it could commit."""
    topic = settings.topics.results
    async with TopicReader(client_options(settings), [topic], start="beginning") as reader:
        records = await reader.rest()
    async with Producer(client_options(settings)) as producer:
        for record in records:
            await producer.send(Outgoing(topic=topic, key=record.key, value=record.value, headers=record.headers))


@pytest.mark.integration
async def test_the_plain_producer_is_understood_and_the_plain_reader_drops_repeats(system: System) -> None:
    """Two requests, the first one's result written twice: each is printed once."""
    await run(system, "python_producer.py", "a-1", "What is a sluice?")
    await system.ended(["a-1"])
    await repeat_results(system.settings)
    await run(system, "python_producer.py", "a-2", "What is a lock?")
    outcome = await system.ended(["a-2"])
    assert outcome.result("a-2").status is State.COMPLETED
    printed = await run(system, "python_results.py", "a-2")
    assert [line.split()[:2] for line in printed.splitlines()] == [["a-1", "completed"], ["a-2", "completed"]]


@pytest.mark.integration
async def test_the_python_client_gets_its_verdict(system: System) -> None:
    """The easier of the two texts wins."""
    printed = await run(system, "python_client.py")
    assert printed.startswith("completed: Essay A, confidence 5.0 of 5\n")


@pytest.mark.integration
async def test_the_json_request_runs_and_leaves_a_trail_without_texts(system: System) -> None:
    """Every topic that a streamed request passes is in it, and its question is not."""
    value = (EXAMPLES / "request.json").read_bytes()
    await system.send_raw([(b"quickstart-1", value)])
    outcome = await system.ended(["quickstart-1"])
    assert outcome.result("quickstart-1").status is State.COMPLETED
    printed = await run(system, "trail.py", "quickstart-1")
    topics = system.settings.topics
    lane = topics.lane("simulated", Priority.NORMAL)
    for topic in (topics.requests, lane, topics.status, topics.deltas, topics.results):
        assert f" {topic} partition 0 offset 0\n" in printed
    assert '"state":"completed"' in printed
    assert "sluice?" not in printed


def test_the_json_request_is_one_line() -> None:
    """So that it is a line of JSON lines as well as the value of a record."""
    (line,) = (EXAMPLES / "request.json").read_bytes().splitlines()
    assert decode_json(LLMRequest, line).request_id == "quickstart-1"
