"""The page by keyboard alone, in a real Chromium: every control in a sensible order, always in sight, and no trap."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bridge_support import Watched, delta, serving, status_event
from page_support import is_live, live_hub
from playwright.async_api import Page, expect

from schemas.dead_letter import DeadLetter
from schemas.lane_report import LaneReport
from schemas.vocabulary import BreakerState, State
from websocket_bridge.hub import Hub
from websocket_bridge.messages import DeadLetterEntry

pytestmark = pytest.mark.browser

LEFT = "out of the page"
FOCUSED = """() => {
    const focused = document.activeElement;
    if (focused === document.body) return null;
    const { left, top, width, height } = focused.getBoundingClientRect();
    const shown = getComputedStyle(focused);
    const middle = document.elementFromPoint(left + width / 2, top + Math.min(height, innerHeight - top) / 2);
    return {
        id: focused.id,
        label: focused.getAttribute("aria-label"),
        text: focused.innerText.split("\\n").at(-1),
        isMarked: focused.matches(":focus-visible") && shown.outlineStyle === "solid" && shown.outlineWidth === "2px",
        isInSight: middle !== null && focused.contains(middle),
    };
}"""
COUNTERS = ["Queued", "Processing", "Retry scheduled", "Completed", "Failed", "Expired", "Cancelled", "Rejected"]
TOP = ["Skip to the requests", "Requests", "Lanes 1 open", "Dead letters 2", "Dismiss"]


def fill(hub: Hub) -> None:
    """Something of everything, so that every control is there."""
    now = datetime.now(UTC)
    for number in range(30):
        at = now + timedelta(seconds=number)
        hub.on_status(status_event(f"r{number:02}", State.PROCESSING, 2, attempt=1, submitted_at=at, occurred_at=at))
    hub.on_delta(delta("r28", 0, "Once upon a time. " * 100))
    for number in range(2):
        letter = DeadLetter(
            request_id=f"r{number:02}",
            message="too large",
            original_topic="t",
            original_partition=0,
            original_offset=number,
            size_bytes=9,
        )
        hub.on_dead_letter(
            DeadLetterEntry(partition=0, offset=number, at=now + timedelta(seconds=number), letter=letter)
        )
    report(hub, BreakerState.CLOSED)


def report(hub: Hub, breaker: BreakerState) -> None:
    hub.on_lane_report(
        LaneReport(provider="openai", worker="w", reported_at=datetime.now(UTC), interval_ms=1000, breaker=breaker)
    )
    hub.flush()


async def focused(page: Page) -> dict[str, Any] | None:
    return await page.evaluate(FOCUSED)


async def walk(page: Page, *, at_most: int = 60) -> list[str]:
    """What has the focus with each Tab, until it leaves the page."""
    names: list[str] = []
    while (now := await press(page, "Tab")) != LEFT:
        names.append(now)
        assert len(names) <= at_most, f"a trap: {names[-5:]}"
    return names


async def press(page: Page, key: str) -> str:
    """What has the focus after a key. It is marked as such, and nothing covers it."""
    await page.keyboard.press(key)
    found = await focused(page)
    if found is None:
        return LEFT
    name = found["label"] or found["text"] or found["id"]
    assert found["isMarked"], f"{name} does not look focused"
    assert found["isInSight"], f"{name} has the focus, and is out of sight"
    return name


async def test_tab_goes_through_every_control_from_top_to_bottom_and_back(watched: Watched) -> None:
    """Views, counters, filter, one row, then the open request, and out of the page."""
    hub, metrics = live_hub()
    page = watched.page
    fill(hub)
    async with serving(hub, metrics) as server:
        await page.goto(f"{server.url}#open=r28")
        await is_live(page)
        await expect(page.locator("#rows tr").first).to_be_visible()
        report(hub, BreakerState.OPEN)
        await expect(page.locator("#lanes-badge")).to_have_text("1 open")
        await expect(page.locator("#stream")).to_be_visible()
        expected = [*TOP, *COUNTERS, "filter", "Single keys", "r29", "Close details", "Answer, as it arrives"]
        assert await walk(page) == expected
        assert [await press(page, "Shift+Tab") for _ in expected] == expected[::-1]
    assert watched.complaints == []


async def test_a_request_is_opened_read_and_closed_and_the_reader_is_back_at_its_row(watched: Watched) -> None:
    """By the skip link, arrows and Enter; the close button gives the focus back, also where its row is gone."""
    hub, metrics = live_hub()
    page = watched.page
    fill(hub)
    async with serving(hub, metrics) as server:
        await page.goto(server.url)
        await is_live(page)
        await expect(page.locator("#rows tr").first).to_be_visible()
        assert await press(page, "Tab") == "Skip to the requests"
        await page.keyboard.press("Enter")
        assert await press(page, "Tab") == "r29"
        for _ in range(25):
            name = await press(page, "ArrowDown")
        assert name == "r04"
        for _ in range(24):
            name = await press(page, "ArrowUp")
        assert name == "r28"
        await page.keyboard.press("Enter")
        await expect(page.locator("#detail-title")).to_have_text("r28")
        await expect(page.locator("#stream")).to_be_visible()
        assert await press(page, "Tab") == "Close details"
        assert await press(page, "Tab") == "Answer, as it arrives"
        await page.keyboard.press("Home")
        await expect(page.locator("#stream")).to_have_js_property("scrollTop", 0)
        await page.keyboard.press("ArrowDown")
        await expect(page.locator("#stream")).not_to_have_js_property("scrollTop", 0)
        assert await press(page, "Shift+Tab") == "Close details"
        await page.keyboard.press("Enter")
        await expect(page.locator("#detail")).to_be_hidden()
        await expect(page.get_by_role("button", name="r28", exact=True)).to_be_focused()

        await page.keyboard.press("Enter")
        await page.keyboard.press("/")
        await page.keyboard.type("r05")
        await expect(page.locator("#rows .id")).to_have_text(["r05"])
        assert await press(page, "Tab") == "Single keys"
        assert await press(page, "Tab") == "r05"
        assert await press(page, "Tab") == "Close details"
        await page.keyboard.press("Space")
        await expect(page.locator("#detail")).to_be_hidden()
        await expect(page.locator("#requests")).to_be_focused()
        assert await press(page, "Tab") == "r05"


async def test_views_are_chosen_by_keyboard_and_a_letter_leads_to_its_request_and_back(watched: Watched) -> None:
    """By button or by number; the focus is never left in a view that is hidden."""
    hub, metrics = live_hub()
    page = watched.page
    fill(hub)
    async with serving(hub, metrics) as server:
        await page.goto(server.url)
        await is_live(page)
        await expect(page.locator("#rows tr").first).to_be_visible()
        await page.keyboard.press("j")
        await page.keyboard.press("2")
        await expect(page.locator("#lanes-title")).to_be_focused()
        await expect(page.locator("#view-lanes")).to_be_visible()
        await page.keyboard.press("3")
        await expect(page.locator("#letters-title")).to_be_focused()
        assert [await press(page, "Tab") for _ in range(4)] == ["Open only", "r01", "r00", LEFT]
        for _ in range(2):
            await page.keyboard.press("Shift+Tab")
        await page.keyboard.press("Enter")
        await expect(page.locator("#detail-title")).to_have_text("r01")
        await expect(page.locator("#detail-title")).to_be_focused()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("button", name="r01", exact=True)).to_be_focused()
        await page.keyboard.press("3")
        views = [await press(page, "Shift+Tab") for _ in range(2)]
        assert views == ["Dead letters 2", "Lanes"]
        await page.keyboard.press("Enter")
        await expect(page.locator("#view-lanes")).to_be_visible()
        assert (await focused(page) or {})["text"] == "Lanes"


async def test_on_a_phone_the_open_request_takes_the_focus_and_gives_it_back(watched: Watched) -> None:
    """It covers the list: whoever tabs on is in it, and Escape leads back to the row."""
    hub, metrics = live_hub()
    page = watched.page
    fill(hub)
    await page.set_viewport_size({"width": 390, "height": 780})
    async with serving(hub, metrics) as server:
        await page.goto(server.url)
        await is_live(page)
        await expect(page.locator("#rows tr").first).to_be_visible()
        await page.keyboard.press("j")
        await page.keyboard.press("j")
        await page.keyboard.press("Enter")
        await expect(page.locator("#detail-title")).to_be_focused()
        await expect(page.locator("#stream")).to_be_visible()
        assert await press(page, "Tab") == "Close details"
        assert await press(page, "Tab") == "Answer, as it arrives"
        assert await press(page, "Tab") == LEFT
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("button", name="r28", exact=True)).to_be_focused()


@pytest.mark.parametrize("width", [1280, 640])
async def test_single_keys_can_be_switched_off_and_stay_so(watched: Watched, width: int) -> None:
    """For who speaks to the machine: each letter of a word would do something. Arrows, Enter and Escape go on.

    Also where the page is enlarged to twice its size, which makes it narrow.
    """
    hub, metrics = live_hub()
    page = watched.page
    fill(hub)
    await page.set_viewport_size({"width": width, "height": 720})
    async with serving(hub, metrics) as server:
        await page.goto(server.url)
        await is_live(page)
        toggle = page.get_by_role("button", name="Single keys")
        await expect(toggle).to_have_attribute("aria-pressed", "true")
        await toggle.click()
        for _ in range(2):
            await expect(toggle).to_have_attribute("aria-pressed", "false")
            await page.get_by_role("button", name="r29", exact=True).focus()
            for key in "2jk/3":
                await page.keyboard.press(key)
            await expect(page.get_by_role("button", name="r29", exact=True)).to_be_focused()
            assert await press(page, "ArrowDown") == "r28"
            await page.keyboard.press("Enter")
            await expect(page.locator("#detail-title")).to_have_text("r28")
            await page.keyboard.press("Escape")
            await page.locator("#filter").fill("j/1")
            await expect(page.locator("#filter")).to_have_value("j/1")
            await page.locator("#filter").fill("")
            await page.reload()
            await is_live(page)
        await toggle.click()
        await page.keyboard.press("2")
        await expect(page.locator("#lanes-title")).to_be_focused()
    assert watched.complaints == []
