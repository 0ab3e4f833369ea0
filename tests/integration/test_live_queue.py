"""What the pipeline itself says on the page: places in the queue, lanes and breakers, by the real roles."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright, expect

from connectors.settings import Settings
from schemas import LLMRequest
from schemas.request import Message
from schemas.vocabulary import Role
from sluice.stack import ports
from tests.integration.system import System, running_system
from tests.support.chromium import ARGUMENTS, required_chromium

pytestmark = [pytest.mark.integration, pytest.mark.browser]

TIMEOUT_MS = 30_000
ANSWER = "A gate that lets the water through, a little at a time."


@asynccontextmanager
async def page_of(settings: Settings, folder: Path, **system_options: Any) -> AsyncIterator[tuple[System, Page, str]]:
    chromium = await asyncio.to_thread(required_chromium)
    (port,) = ports.choose(1)
    options = {"SLUICE_BRIDGE__PORT": str(port), "SLUICE_BRIDGE__ALLOW_ALL": "true"}
    async with (
        running_system(settings, folder, options=options, **system_options) as system,
        async_playwright() as playwright,
    ):
        await asyncio.gather(system.start("bridge"), system.start("intake"), system.start("lane", "simulated"))
        browser = await playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        try:
            yield system, await browser.new_page(), f"http://127.0.0.1:{port}/"
        finally:
            await browser.close()


def request(name: str, **metadata: str) -> LLMRequest:
    told = {"simulated.answer": ANSWER} | metadata
    return LLMRequest(request_id=name, messages=[Message(role=Role.USER, content="hello")], stream=True, metadata=told)


async def test_who_waits_is_told_its_place_and_the_lane_tells_its_numbers(
    stack_settings: Settings, tmp_path: Path
) -> None:
    """One call of about 1.5 s at once, and eight requests: the last one moves up until it is next, and is done."""
    slow = "first_token_ms = 900\ntokens_per_second = 20"
    async with page_of(stack_settings, tmp_path, provider_options=slow, concurrency=1) as (system, page, url):
        names = [f"waits-{number}" for number in range(8)]
        await page.goto(f"{url}?request_id={','.join(names)}")
        await system.send([request(name) for name in names[:-1]])
        row = page.locator("#rows tr", has_text=names[-2])
        await expect(row).to_contain_text("Queued", timeout=TIMEOUT_MS)
        await system.send([request(names[-1])])
        note = page.locator("#rows tr", has_text=names[-1]).locator(".c-note")
        places = re.compile(r"About number [4-8] in line, about \d+(\.\d)? s to wait")
        await expect(note).to_have_text(places, timeout=TIMEOUT_MS)
        await page.keyboard.press("2")
        lane = page.get_by_role("region", name="Lane of simulated")
        await expect(lane).to_contain_text("1 worker")
        await expect(lane).to_contain_text("In flight1 of 1")
        await expect(lane).to_contain_text(re.compile(r"Depth[2-8]"))
        await expect(lane).to_contain_text(re.compile(r"Answered0\.[1-9]/s"), timeout=TIMEOUT_MS)
        await expect(lane).to_contain_text(re.compile(r"Latency p50, p95[1-9]\.\d s, [1-9]\.\d s"))
        await page.keyboard.press("1")
        await expect(note).to_have_text(re.compile(r"(About number [23]|Next) in line, about"), timeout=TIMEOUT_MS)
        await expect(page.locator("#counters [data-state=completed] .number")).to_have_text("8", timeout=TIMEOUT_MS)
        await page.get_by_role("button", name=names[-1], exact=True).click()
        steps = ["Queued", "Waiting in the lane", "Attempt 1: simulated", "Completed"]
        await expect(page.locator("#timeline .label")).to_have_text(steps)
        await expect(page.locator("#timeline")).to_contain_text("first token after")
        await expect(page.locator("#facts")).to_contain_text(re.compile(r"Provider's time[1-9]\.\d s of [1-9]\d? s"))
        await expect(page.locator("#facts")).to_contain_text(re.compile(r"Tokens\d+ in \(0 cached\), \d+ out"))
        await expect(page.locator("#stream-text")).to_have_text(ANSWER)


async def test_a_breaker_that_opens_and_closes_is_a_line_on_the_page(stack_settings: Settings, tmp_path: Path) -> None:
    """Why and since when, wherever the reader is; and that the provider is called again."""
    rules = "[providers.simulated.breaker]\nfailures = 5\nopen_seconds = 4\nsuccesses = 1\n"
    async with page_of(stack_settings, tmp_path, provider_rules=rules, concurrency=4) as (system, page, url):
        await page.goto(url)
        await page.keyboard.press("2")
        lane = page.get_by_role("region", name="Lane of simulated")
        await expect(lane.locator(".breaker")).to_have_text("Breaker closed", timeout=TIMEOUT_MS)
        await page.keyboard.press("1")
        await system.send([request(f"bad-{number}", **{"simulated.fail": "overloaded"}) for number in range(8)])
        notice = page.locator("#notice")
        await expect(notice).to_contain_text("simulated is not called, since", timeout=TIMEOUT_MS)
        await expect(notice).to_contain_text("overloaded. It is tried again at")
        await expect(page.locator("#lanes-badge")).to_have_text("1 open")
        await page.keyboard.press("2")
        await expect(lane.locator(".breaker")).to_have_text("Breaker open")
        await expect(lane).to_contain_text("not called since")
        await system.send([request(f"good-{number}") for number in range(4)])
        await expect(notice).to_contain_text("simulated is called again, since", timeout=TIMEOUT_MS)
        await expect(lane.locator(".breaker")).to_have_text("Breaker closed")
        await expect(page.locator("#lanes-badge")).to_be_hidden()
