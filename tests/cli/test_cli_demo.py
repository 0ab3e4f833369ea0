"""`sluice demo` from end to end, as a process with a state directory of its own on the run's Kafka and Redis."""

import asyncio
import json
import signal
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from connectors.kafka.client import client_options
from connectors.settings import Settings
from tests.cli.processes import Command, still_running, wait_until

pytestmark = pytest.mark.integration
ROLES = ("intake", "lane", "control", "bridge")


def environment(settings: Settings, folder: Path) -> dict[str, str]:
    return {
        "KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "SLUICE_STATE_DIR": str(folder / "state"),
    }


async def no_topics_of(run: str, settings: Settings) -> None:
    """Waits until the broker has deleted the topics of a run."""
    admin = AIOKafkaAdminClient(**client_options(settings))
    await admin.start()
    try:
        async with asyncio.timeout(20):
            while any(name.startswith(run) for name in await admin.list_topics()):
                await asyncio.sleep(0.1)
    finally:
        await admin.close()


async def test_the_demo_completes_every_request_and_leaves_nothing(stack_settings: Settings, tmp_path: Path) -> None:
    """Standard output is one JSON object; nothing is lost or ended twice. Kept up, it goes away without a trace."""
    demo = Command(
        *("demo", "--json", "--keep", "--essays", "5", "--rate", "50", "--latency", "50"),
        environment=environment(stack_settings, tmp_path),
    )
    assert demo.process.stdout is not None
    report = json.loads(await asyncio.to_thread(demo.process.stdout.readline))
    counts = ("requests", "completed", "failed", "lost", "duplicate_terminal_events")
    assert [report[name] for name in counts] == [10, 10, 0, 0, 0]
    assert 0 < report["overhead_ms"]["p50"] <= report["overhead_ms"]["p95"]
    assert report["requests_per_second"] > 0
    assert [place["wins"] for place in report["ranking"]] == [4, 3, 2, 1, 0]

    roles = demo.children()
    assert len(still_running(roles)) == len(ROLES)
    demo.interrupt()
    ended = await asyncio.to_thread(demo.end)
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert f"SLUICE_TOPIC_PREFIX={report['run']}." in ended.stderr
    assert still_running(roles) == []
    assert not list((tmp_path / "state" / "demo").iterdir())
    await no_topics_of(report["run"], stack_settings)


@pytest.mark.parametrize("phase", ["starting", "running"])
async def test_ctrl_c_ends_the_demo_and_all_that_it_started(
    phase: str, stack_settings: Settings, tmp_path: Path
) -> None:
    """While its roles start, and in mid-run: exit code 130, no process, topic or folder is left, no traceback."""
    demo = Command("demo", "--json", "--rate", "1", environment=environment(stack_settings, tmp_path))
    assert demo.process.stderr is not None
    said = b""
    awaited = b"Watch it live" if phase == "running" else b"connecting"
    while awaited not in said:
        read = await asyncio.to_thread(demo.process.stderr.readline)
        assert read, f"it ended early: {said.decode()}"
        said += read
    await asyncio.to_thread(wait_until, lambda: len(demo.children()) == len(ROLES))
    roles = demo.children()
    (folder,) = (tmp_path / "state" / "demo").iterdir()
    assert {role for role in ROLES for process in roles if role in process.cmdline()} == set(ROLES)

    demo.interrupt()
    demo.interrupt(signal.SIGTERM)
    ended = await asyncio.to_thread(demo.end)
    assert (ended.exit_code, ended.stdout) == (130, "")
    assert ended.stderr.endswith("Interrupted; everything that was started is stopped.\n")
    assert "Traceback" not in ended.stderr
    assert still_running(roles) == []
    assert not folder.exists()
    await no_topics_of(folder.name, stack_settings)
