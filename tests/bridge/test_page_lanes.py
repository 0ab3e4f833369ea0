"""The page's view of lanes, breakers and places in the queue, in a real Chromium."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bridge_support import Watched, serving, status_event
from page_support import is_live, live_hub, row
from playwright.async_api import expect

from schemas.lane_report import LaneReport
from schemas.vocabulary import BreakerState, FailureCategory, State

pytestmark = pytest.mark.browser

PIXELS = """() => {
    window.pixels = (canvas) => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return Array.from({ length: data.length / 4 }, (_, at) => data.slice(4 * at, 4 * at + 4));
    };
}"""


async def test_lanes_show_numbers_charts_and_a_line_when_a_breaker_changes(watched: Watched) -> None:
    """A chart each for depth, rate and latency; the line is told wherever the reader is."""
    hub, metrics = live_hub()
    page = watched.page

    def report(breaker: BreakerState, second: int, **fields: Any) -> None:
        at = datetime.now(UTC) + timedelta(seconds=second)
        hub.on_lane_report(
            LaneReport(
                provider="openai",
                worker="w-1",
                reported_at=at,
                interval_ms=1000,
                breaker=breaker,
                concurrency=8,
                **fields,
            )
        )

    async with serving(hub, metrics) as server:
        await page.goto(server.url)
        await is_live(page)
        report(BreakerState.CLOSED, 0, backlog=40, in_flight=8, answered=4, call_ms_p50=800, call_ms_p95=2000)
        report(BreakerState.OPEN, 1, backlog=41, failed=3, breaker_reason=FailureCategory.OVERLOADED)
        hub.flush()
        await expect(page.locator("#notice")).to_contain_text("openai is not called, since")
        await expect(page.locator("#notice")).to_contain_text("overloaded")
        await expect(page.locator("#lanes-badge")).to_have_text("1 open")
        await page.keyboard.press("2")
        lane = page.get_by_role("region", name="Lane of openai")
        await expect(lane.locator(".breaker")).to_have_text("Breaker open")
        await expect(lane).to_contain_text("Depth41")
        await expect(lane.locator("canvas")).to_have_count(3)
        await page.evaluate(PIXELS)
        # The line of what is in flight is blue: colours of the style sheet get into the chart.
        blue = "([r, g, b, a]) => a > 200 && b > r + 80 && b > g + 80"
        assert await lane.locator("canvas").first.evaluate(f"canvas => pixels(canvas).some({blue})")
        report(BreakerState.CLOSED, 2, backlog=39)
        hub.flush()
        await expect(page.locator("#notice")).to_contain_text("openai is called again")
        await page.get_by_role("button", name="Dismiss").click()
        await expect(page.locator("#notice")).to_be_hidden()
        await page.reload()
        await expect(page.locator("#view-lanes")).to_be_visible()
    assert watched.complaints == []


def lane_report(at: datetime, **fields: Any) -> LaneReport:
    return LaneReport(provider="openai", worker="w-1", reported_at=at, interval_ms=2000, **fields)


async def test_a_page_that_is_opened_now_shows_the_last_minutes_and_a_reload_loses_none(watched: Watched) -> None:
    """The bridge remembers them; under the pointer a chart tells its numbers."""
    hub, metrics = live_hub()
    page = watched.page
    now = datetime.now(UTC)
    for second in range(300, 0, -5):
        hub.on_lane_report(lane_report(now - timedelta(seconds=second), backlog=700, in_flight=8, concurrency=8))
    hub.on_lane_report(lane_report(now, backlog=3, in_flight=3, concurrency=8))
    figure = page.locator("#lanes figure").first
    async with serving(hub, metrics) as server:
        await page.goto(f"{server.url}#view=lanes")
        for _ in range(2):
            await expect(figure.locator("canvas")).to_be_visible()
            await figure.locator(".u-over").hover()
            await expect(figure).to_contain_text("in the lane 700")
            await expect(figure).to_contain_text("in flight 8")
            await page.mouse.move(0, 0)
            await expect(figure).not_to_contain_text("700")
            await page.reload()
    assert watched.complaints == []


async def test_an_open_breaker_says_since_when_why_and_when_it_is_tried_again(watched: Watched) -> None:
    """The time left moves without any report; also for a page that was opened after the breaker."""
    hub, metrics = live_hub()
    page = watched.page
    now = datetime.now(UTC)
    why = {"breaker_reason": FailureCategory.OVERLOADED, "breaker_since": now - timedelta(seconds=40)}
    hub.on_lane_report(lane_report(now, breaker=BreakerState.OPEN, breaker_retry_at=now + timedelta(minutes=3), **why))
    lane = page.get_by_role("region", name="Lane of openai")
    async with serving(hub, metrics) as server:
        await page.goto(f"{server.url}#view=lanes")
        await expect(page.locator("#lanes-badge")).to_have_text("1 open")
        said = lane.locator(".sub")
        await expect(said).to_contain_text("1 worker · not called since ")
        await expect(said).to_contain_text("overloaded · tried again in 2 min")
        first = await said.text_content() or ""
        await expect(said).not_to_have_text(first)
        await expect(lane).to_contain_text("Wait for a new oneuntil it is called again")


async def test_a_queued_request_that_is_open_says_where_it_stands_and_how_long_it_waits(watched: Watched) -> None:
    """About, again with each report, and no more once it has its turn."""
    hub, metrics = live_hub()
    page = watched.page
    for number in range(3):
        hub.on_status(status_event(f"r{number}", State.QUEUED, 1, provider="openai"))
    now = datetime.now(UTC)
    busy = {"in_flight": 4, "concurrency": 4, "answered": 8}

    def report(second: int, backlog: int) -> None:
        hub.on_lane_report(lane_report(now + timedelta(seconds=second), backlog=backlog, **busy))
        hub.flush()

    async with serving(hub, metrics) as server:
        await page.goto(f"{server.url}#open=r2")
        await is_live(page)
        message = page.locator("#detail-message")
        report(0, 4 + 3 + 90)
        await expect(message).to_have_text("About number 93 in line, about 23 s to wait")
        await expect(row(page, "r2").locator(".c-note")).to_have_text("About number 93 in line, about 23 s to wait")
        for number in range(2):
            hub.on_status(status_event(f"r{number}", State.PROCESSING, 2, provider="openai", attempt=1))
        report(2, 4 + 1)
        await expect(message).to_have_text("Next in line, about 0.3 s to wait")
        hub.on_status(status_event("r2", State.PROCESSING, 2, provider="openai", attempt=1))
        hub.flush()
        await expect(message).to_be_hidden()
