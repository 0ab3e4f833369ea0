"""The page over bridges that die in mid-stream, with a real Kafka and a real Chromium."""

import asyncio
from pathlib import Path

import pytest
from bridge_deployment import Deployment
from bridge_support import SUBMITTED_AT, Watched, delta, status_event
from page_support import SEE_FRAMES, is_live, row
from playwright.async_api import expect

from schemas.result import LLMResult, Timings
from schemas.vocabulary import State
from sluice.role_process import RoleProcess
from sluice.stack import ports

pytestmark = [pytest.mark.browser, pytest.mark.integration]

PIECES = 60
PIECE_EVERY_SECONDS = 0.1


async def test_a_bridge_killed_in_mid_stream_costs_no_event_and_doubles_none(
    watched: Watched, deployment: Deployment, tmp_path: Path
) -> None:
    """kill -9 and a new process on the same port while an answer streams: the text is whole, each state came once."""
    await deployment.create_topics()
    topics, page = deployment.topics, watched.page
    (port,) = ports.choose(1)
    environment = {
        "KAFKA_BOOTSTRAP": deployment.bootstrap,
        "SLUICE_TOPIC_PREFIX": topics.prefix,
        "SLUICE_BRIDGE__PORT": str(port),
        "SLUICE_BRIDGE__ALLOW_ALL": "true",
    }

    def start() -> RoleProcess:
        return RoleProcess("bridge", environment=environment, log_path=tmp_path / "bridge.log")

    async def write() -> None:
        for seq in range(PIECES):
            await deployment.write(topics.deltas, delta("essay", seq, f"{seq} "))
            await asyncio.sleep(PIECE_EVERY_SECONDS)

    role = start()
    try:
        await role.ready()
        await page.add_init_script(SEE_FRAMES)
        await page.goto(f"http://127.0.0.1:{port}/#open=essay")
        await is_live(page)
        await deployment.write(topics.status, status_event("essay", State.QUEUED, 1))
        await deployment.write(topics.status, status_event("essay", State.PROCESSING, 2, attempt=1))
        writing = asyncio.create_task(write())
        await expect(page.locator("#stream-text")).to_contain_text("4 5 6")
        role.kill()
        await expect(page.get_by_role("alert")).to_contain_text("What you see is as of")
        role = start()
        await is_live(page)
        await writing
        await deployment.write(topics.status, status_event("essay", State.COMPLETED, 3, attempt=1))
        timings = Timings(provider_ms=900, total_ms=1000, overhead_ms=100)
        done = LLMResult(
            request_id="essay",
            status=State.COMPLETED,
            state_version=3,
            submitted_at=SUBMITTED_AT,
            finished_at=SUBMITTED_AT,
            timings=timings,
        )
        await deployment.write(topics.results, done)
        await expect(row(page, "essay")).to_contain_text("Completed")
        await expect(row(page, "essay").locator(".c-elapsed")).to_have_text("1.0 s")
        assert await page.locator("#stream-text").text_content() == "".join(f"{seq} " for seq in range(PIECES))
    finally:
        role.kill()
    seen = await page.evaluate("window.frames_seen")
    assert [frame["recovered"] for frame in seen if frame["type"] == "resumed"] == [True]
    pieces = [n for frame in seen if frame["type"] == "delta" for n in range(frame["seq"], frame["last_seq"] + 1)]
    assert pieces == list(range(PIECES))
    versions = [frame["event"]["state_version"] for frame in seen if frame["type"] == "status"]
    assert versions == [1, 2, 3]
