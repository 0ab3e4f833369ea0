"""A real browser watches a real request through a real Kafka."""

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import async_playwright, expect

from connectors.settings import Settings
from schemas import LLMRequest
from schemas.request import Message
from schemas.vocabulary import Role
from sluice.stack import ports
from tests.integration.system import running_system
from tests.support.chromium import ARGUMENTS, required_chromium

pytestmark = [pytest.mark.integration, pytest.mark.browser]

TIMEOUT_MS = 20_000


async def test_a_row_goes_from_queued_to_completed_without_reload(stack_settings: Settings, tmp_path: Path) -> None:
    """Queued while no lane runs, processing while the provider thinks, completed when it has answered."""
    chromium = await asyncio.to_thread(required_chromium)
    (port,) = ports.choose(1)
    options = {"SLUICE_BRIDGE__PORT": str(port), "SLUICE_BRIDGE__ALLOW_ALL": "true"}
    async with running_system(stack_settings, tmp_path, options=options) as system, async_playwright() as playwright:
        await asyncio.gather(system.start("bridge"), system.start("intake"))
        browser = await playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        try:
            page = await browser.new_page()
            await page.goto(f"http://127.0.0.1:{port}/")
            await page.evaluate("window.notReloaded = true")
            row = page.locator("#rows tr", has_text="watched-1")

            await system.send(
                [
                    LLMRequest(
                        request_id="watched-1",
                        messages=[Message(role=Role.USER, content="hello")],
                        metadata={"simulated.latency_ms": "2000"},
                    )
                ]
            )
            await expect(row).to_contain_text("Queued", timeout=TIMEOUT_MS)
            lane = system.spawn("lane", "simulated")
            await expect(row).to_contain_text("Processing", timeout=TIMEOUT_MS)
            await expect(row).to_contain_text("simulated")
            await expect(row).to_contain_text("Completed", timeout=TIMEOUT_MS)
            assert await page.evaluate("window.notReloaded")
            assert lane.process.poll() is None
        finally:
            await browser.close()
