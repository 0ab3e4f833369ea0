import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from connectors.providers.call_journal import read_journal
from connectors.providers.errors import ProviderConfigurationError
from connectors.providers.simulated import SimulatedProvider
from connectors.providers.simulated_options import SimulatedOptions
from tests.providers.calls import a_call, events_of, outcome_of

CALL_FOR_EVER = """
import asyncio, sys
from pathlib import Path
from connectors.providers.simulated import SimulatedProvider
from connectors.providers.simulated_options import SimulatedOptions
from tests.providers.calls import a_call, outcome_of

provider = SimulatedProvider("simulated", SimulatedOptions(latency_ms=0, journal_path=Path(sys.argv[1])))
asyncio.run(outcome_of(provider, a_call(request_id="doomed", attempt=2, metadata={"simulated.hang": "true"})))
"""


@pytest.fixture
def journal_path(tmp_path: Path) -> Path:
    return tmp_path / "calls.jsonl"


@pytest.fixture
def provider(journal_path: Path) -> SimulatedProvider:
    return SimulatedProvider("simulated", SimulatedOptions(latency_ms=0, journal_path=journal_path))


def events_in(journal_path: Path) -> list[tuple[object, object, object]]:
    if not journal_path.exists():
        return []
    return [(line["request_id"], line["attempt"], line["event"]) for line in read_journal(journal_path)]


async def test_each_call_is_there_with_its_end(provider: SimulatedProvider, journal_path: Path) -> None:
    """A start and an end for each call, with who made it."""
    await outcome_of(provider, a_call(request_id="good"))
    await outcome_of(provider, a_call(request_id="bad", metadata={"simulated.fail": "server_error"}))
    await provider.close()
    assert events_in(journal_path) == [
        ("good", 1, "start"),
        ("good", 1, "answered"),
        ("bad", 1, "start"),
        ("bad", 1, "failed"),
    ]
    assert {line["pid"] for line in read_journal(journal_path)} == {os.getpid()}


async def test_a_cancelled_call_ends_as_cancelled(provider: SimulatedProvider, journal_path: Path) -> None:
    """Cancelling the task writes the end that it made."""
    task = asyncio.create_task(events_of(provider, a_call(metadata={"simulated.hang": "true"})))
    async with asyncio.timeout(60):
        while not events_in(journal_path):
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
    assert [event for _, _, event in events_in(journal_path)] == ["start", "cancelled"]


async def test_a_stream_that_is_left_early_ends_as_cancelled(provider: SimulatedProvider, journal_path: Path) -> None:
    """Leaving the block after the first piece is a cancellation."""
    async with provider.open(a_call(stream=True)) as events:
        await anext(events)
    assert [event for _, _, event in events_in(journal_path)] == ["start", "cancelled"]


async def test_the_start_outlives_a_kill(journal_path: Path) -> None:
    """Of a process that was killed in mid-call, the start of the call is there, whole, and no end."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", CALL_FOR_EVER, str(journal_path))
    async with asyncio.timeout(60):
        while not events_in(journal_path):
            assert process.returncode is None
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        await process.wait()
    assert events_in(journal_path) == [("doomed", 2, "start")]
    assert read_journal(journal_path)[0]["pid"] == process.pid


def test_a_journal_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    """The provider is not built, and the message names the option."""
    with pytest.raises(ProviderConfigurationError, match="journal_path"):
        SimulatedProvider("simulated", SimulatedOptions(journal_path=tmp_path / "nowhere" / "calls.jsonl"))
