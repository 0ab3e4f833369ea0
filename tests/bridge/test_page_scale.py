"""The page with ten thousand requests, in a real Chromium: few nodes, and every row can be reached."""

from datetime import UTC, datetime, timedelta

import pytest
from bridge_support import HubOptions, Watched, serving, status_event
from page_support import counter, is_live, live_hub, row
from playwright.async_api import expect

from schemas.vocabulary import State

pytestmark = pytest.mark.browser

MANY = 10_000
ROWS_IN_THE_DOCUMENT = 60
START = datetime(2026, 11, 21, tzinfo=UTC)


async def test_ten_thousand_rows_are_a_few_in_the_document(watched: Watched) -> None:
    """All are counted, found and scrolled to; what is read stays in its place while new ones come."""
    hub, metrics = live_hub(HubOptions(remembered_requests=MANY + 100))
    page = watched.page

    def add(number: int) -> None:
        at = START + timedelta(seconds=number)
        hub.on_status(status_event(f"r{number:05}", State.COMPLETED, 3, submitted_at=at, occurred_at=at))

    for number in range(MANY):
        add(number)
    rows = page.locator("#rows tr")
    async with serving(hub, metrics) as server:
        await page.goto(server.url)
        await is_live(page)
        await expect(counter(page, State.COMPLETED)).to_have_text("10,000")
        await expect(page.get_by_role("table")).to_have_attribute("aria-rowcount", str(MANY + 1))
        await expect(rows.first.locator(".id")).to_have_text("r09999")
        assert await rows.count() < ROWS_IN_THE_DOCUMENT

        await page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        await expect(row(page, "r00000")).to_be_in_viewport()
        assert await rows.count() < ROWS_IN_THE_DOCUMENT

        await page.evaluate("scrollTo(0, document.documentElement.scrollHeight / 2)")
        await expect(row(page, "r00000")).to_have_count(0)
        read = page.locator("#rows tr").nth(10)
        name = await read.locator(".id").text_content() or ""
        before = await row(page, name).bounding_box()
        for number in range(MANY, MANY + 20):
            add(number)
        hub.flush()
        await expect(counter(page, State.COMPLETED)).to_have_text("10,020")
        assert await row(page, name).bounding_box() == before

        await page.locator("#requests").focus()
        await page.keyboard.press("j")
        await page.keyboard.press("End")
        await expect(page.get_by_role("button", name="r00000", exact=True)).to_be_focused()
        await page.keyboard.press("Home")
        await expect(page.get_by_role("button", name="r10019", exact=True)).to_be_focused()
        await page.get_by_label("Filter requests").fill("r00077")
        await expect(page.locator("#rows .id")).to_have_text(["r00077"])
    assert watched.complaints == []
