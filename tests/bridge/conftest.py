"""Fixtures of the bridge's tests: one browser for the run, a fresh page for each test."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from bridge_deployment import Deployment
from bridge_support import Watched
from playwright.async_api import Browser, BrowserContext, async_playwright

from schemas.topics import Topics
from tests.support.chromium import ARGUMENTS, required_chromium

DEFAULT_TIMEOUT_MS = 15_000


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    path = await asyncio.to_thread(required_chromium)
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield chromium
        await chromium.close()


@pytest.fixture
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    context = await browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    context.set_default_timeout(DEFAULT_TIMEOUT_MS)
    yield context
    await context.close()


@pytest.fixture
async def watched(context: BrowserContext) -> Watched:
    """A page whose errors, warnings and network requests are kept."""
    watched = Watched(await context.new_page())
    watched.page.on("pageerror", lambda error: watched.complaints.append(str(error)))
    watched.page.on(
        "console",
        lambda message: watched.complaints.append(message.text) if message.type in {"error", "warning"} else None,
    )
    watched.page.on("request", lambda request: watched.requested.append(request.url))
    return watched


@pytest.fixture
async def deployment(stack: Any) -> AsyncIterator[Deployment]:
    topics = Topics(prefix=f"bridge-test-{uuid4().hex[:12]}.")
    producer = AIOKafkaProducer(bootstrap_servers=stack.kafka_bootstrap)
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka_bootstrap)
    made = Deployment(stack.kafka_bootstrap, topics, producer, admin)
    await producer.start()
    await admin.start()
    try:
        yield made
    finally:
        await admin.delete_topics(made.names)
        await producer.stop()
        await admin.close()
