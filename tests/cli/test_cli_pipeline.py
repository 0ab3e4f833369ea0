"""The commands against a running system, as processes: topics, send, watch and the roles themselves."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from connectors.settings import Settings
from sluice.role_process import RoleFailedError, RoleProcess
from tests.cli.processes import Command, Ended, sluice, still_running, wait_until
from tests.cli.test_request_lines import line
from tests.integration.system import System, running_system

pytestmark = pytest.mark.integration


def environment(settings: Settings) -> dict[str, str]:
    """What leads a command to the topics of this test."""
    return {
        "KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "SLUICE_TOPIC_PREFIX": settings.topic_prefix,
        "SLUICE_TOPIC_PARTITIONS": str(settings.topic_partitions),
    }


def objects(ended: Ended) -> list[dict[str, object]]:
    """Standard output as JSON lines, all of it."""
    return [json.loads(text) for text in ended.stdout.splitlines()]


async def test_send_and_watch_before_the_topics_exist_say_how_to_create_them(stack_settings: Settings) -> None:
    """And `topics create` is what they say."""
    here = environment(stack_settings)
    for ended in await asyncio.gather(sluice("send", "hi", environment=here), sluice("watch", environment=here)):
        assert (ended.exit_code, ended.stdout) == (4, "")
        (said,) = ended.stderr.splitlines()
        assert "no such topic: " in said
        assert "sluice topics create" in said
    created = await sluice("topics", "create", "--json", environment=here)
    assert created.exit_code == 0
    sent = await sluice("send", "hi", "--id", "a-1", "--json", environment=here)
    assert (sent.exit_code, sent.stderr, objects(sent)) == (0, "", [{"request_id": "a-1"}])


@asynccontextmanager
async def working(settings: Settings, folder: Path) -> AsyncIterator[System]:
    """A system with an intake and a lane."""
    async with running_system(settings, folder) as system:
        await asyncio.gather(system.start("intake"), system.start("lane", "simulated"))
        yield system


async def test_send_and_watch_on_a_running_system(stack_settings: Settings, tmp_path: Path) -> None:
    """Results and states come out as JSON lines or as text, alone on standard output, with the stated exit codes."""
    here = environment(stack_settings)
    slow = line("l-1", metadata={"simulated.latency_ms": "4000"}).encode()
    lines = "\n".join([line("f-1"), "", line("f-2"), line("f-3")]).encode()
    async with working(stack_settings, tmp_path):
        one, several, refused, late = await asyncio.gather(
            sluice("send", "Say hello", "--id", "a-1", "--wait", environment=here),
            sluice("send", "--file", "-", "--wait", "--json", stdin=lines, environment=here),
            sluice("send", "x", "--id", "r-1", "--model", "nobody-has-it", "--wait", environment=here),
            sluice("send", "-f", "-", "--wait", "--timeout", "1", stdin=slow, environment=here),
        )
        watched = await sluice("watch", "f-1", "r-1", "--until-done", "--json", environment=here)
        never = await sluice("watch", "nobody", "--until-done", "--timeout", "1", environment=here)

    assert (one.exit_code, one.stderr) == (0, "")
    assert one.stdout.startswith("Simulated answer")
    assert (several.exit_code, several.stderr) == (0, "")
    assert sorted(str(result["request_id"]) for result in objects(several)) == ["f-1", "f-2", "f-3"]
    assert {result["status"] for result in objects(several)} == {"completed"}
    assert (refused.exit_code, refused.stdout) == (
        1,
        "r-1: rejected (no_route): no provider serves the model nobody-has-it\n",
    )
    assert (late.exit_code, late.stdout) == (3, "")
    assert "1 of 1 had no result within 1 s" in late.stderr
    assert (watched.exit_code, watched.stderr) == (0, "")
    states = [(event["request_id"], event["state"]) for event in objects(watched)]
    assert [state for name, state in states if name == "f-1"] == ["queued", "processing", "completed"]
    assert [state for name, state in states if name == "r-1"] == ["rejected"]
    assert (never.exit_code, never.stdout) == (3, "")
    assert "nobody" in never.stderr


async def test_ctrl_c_ends_watch_as_asked_and_send_as_interrupted(stack_settings: Settings, tmp_path: Path) -> None:
    """Watching ends with Ctrl-C, which is no failure; waiting is cut short by it, and says what goes on."""
    here = environment(stack_settings)
    async with running_system(stack_settings, tmp_path) as system:
        watch = Command("watch", "--json", "--since", "600", environment=here)
        send = Command("send", "hi", "--id", "a-1", "--wait", environment=here)
        await system.start("intake")
        assert watch.process.stdout is not None
        first = await asyncio.to_thread(watch.process.stdout.readline)
        assert json.loads(first)["request_id"] == "a-1"
        watch.interrupt()
        send.interrupt()
        watched, sent = await asyncio.gather(asyncio.to_thread(watch.end), asyncio.to_thread(send.end))
    assert (watched.exit_code, watched.stdout, watched.stderr) == (0, "", "")
    assert (sent.exit_code, sent.stdout) == (130, "")
    assert sent.stderr == "Interrupted. 1 of 1 were sent, and go on.\n"


async def test_a_role_that_cannot_start_is_quoted_by_whoever_started_it(
    stack_settings: Settings, tmp_path: Path
) -> None:
    """It says why in its log, which the error names and repeats."""
    role = RoleProcess("intake", environment=environment(stack_settings), log_path=tmp_path / "intake.log")
    with pytest.raises(RoleFailedError, match="no such topic") as caught:
        await role.ready()
    assert str(tmp_path / "intake.log") in str(caught.value)
    assert "ended with exit code 1" in str(caught.value)
    assert await role.stop() == 1


PARENT = """
import asyncio, os, sys
from pathlib import Path
from sluice.role_process import RoleProcess

role = RoleProcess("intake", environment={}, log_path=Path(sys.argv[1]))
asyncio.run(role.ready())
print(role.pid, flush=True)
sys.stdin.read()
"""


async def test_a_role_ends_in_order_when_whoever_started_it_is_killed(stack_settings: Settings, tmp_path: Path) -> None:
    """No process is left behind by a `kill -9`, which nobody can catch."""
    log = tmp_path / "intake.log"
    async with running_system(stack_settings, tmp_path):
        parent = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PARENT, str(log)),
            env={**os.environ, **environment(stack_settings)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert parent.stdout is not None
        role = psutil.Process(int(await parent.stdout.readline()))
        parent.kill()
        await parent.wait()
        await asyncio.to_thread(wait_until, lambda: not still_running([role]))
    assert "worker_stopped" in log.read_text()
