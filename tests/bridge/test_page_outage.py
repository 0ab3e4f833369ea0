"""The page while Kafka is killed and comes back, in a real Chromium: a Kafka of this test's own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from bridge_deployment import KAFKA_WAIT_SECONDS, Deployment, running
from bridge_support import Watched, connected, delta, status_event
from page_support import SEE_FRAMES, is_live, row
from playwright.async_api import expect

from schemas.topics import Topics
from schemas.vocabulary import State
from sluice import stack as local_stack

pytestmark = [pytest.mark.browser, pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(180)]

BACK_MS = KAFKA_WAIT_SECONDS * 1000


@asynccontextmanager
async def deployed(bootstrap: str) -> AsyncIterator[Deployment]:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        try:
            yield Deployment(bootstrap, Topics(), producer, admin)
        finally:
            await admin.close()


async def test_kafka_killed_in_mid_stream_is_told_and_costs_nothing(watched: Watched, tmp_path: Path) -> None:
    """What the bridge knew stays on the page, and new pages get it; then it goes on, each piece and state once."""
    page = watched.page
    stack = local_stack.start(tmp_path, environ={})
    kafka = await asyncio.to_thread(stack.__enter__)
    try:
        async with deployed(kafka.kafka_bootstrap) as before:
            await before.create_topics()
            topics = before.topics
            async with running(before) as run:
                await page.add_init_script(SEE_FRAMES)
                await page.goto(f"{run.bridge.url}#open=essay")
                await is_live(page)
                await before.write(topics.status, status_event("essay", State.PROCESSING, 2, attempt=1))
                for seq in range(3):
                    await before.write(topics.deltas, delta("essay", seq, f"{seq} "))
                await expect(page.locator("#stream-text")).to_have_text("0 1 2 ")
                await asyncio.to_thread(kafka.kafka.kill)
                await expect(page.get_by_role("status")).to_have_text("Connected, but Kafka is away", timeout=BACK_MS)
                await expect(page.get_by_role("alert")).to_contain_text("What you see is the last it knew.")
                assert run.bridge.ready
                async with connected(run.bridge) as late:
                    assert (await late.push("hello"))["feed"] == "away"
                    await late.command("subscribe", request_ids=["essay"], deltas=True)
                    (event,) = (await late.push("snapshot"))["requests"]
                    assert event["state_version"] == 2
                await asyncio.to_thread(kafka.kafka.start)
                async with deployed(kafka.kafka_bootstrap) as after:
                    for seq in range(3, 6):
                        await after.write(topics.deltas, delta("essay", seq, f"{seq} "))
                    await after.write(topics.status, status_event("essay", State.COMPLETED, 3, attempt=1))
                    await expect(page.locator("#stream-text")).to_have_text("0 1 2 3 4 5 ", timeout=BACK_MS)
                    await expect(row(page, "essay")).to_contain_text("Completed")
                    await expect(page.get_by_role("status")).to_have_text("Live", timeout=BACK_MS)
                    await expect(page.get_by_role("alert")).to_be_hidden()
    finally:
        await asyncio.to_thread(stack.__exit__, None, None, None)
    seen = await page.evaluate("frames_seen")
    assert [frame["seq"] for frame in seen if frame["type"] == "delta"] == list(range(6))
    assert [frame["event"]["state_version"] for frame in seen if frame["type"] == "status"] == [2, 3]
    assert "resumed" not in {frame["type"] for frame in seen}, "the connection to the bridge never broke"
