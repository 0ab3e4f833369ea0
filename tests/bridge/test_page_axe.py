"""The page as assistive technology meets it: axe finds nothing, in light and dark, on a desk and on a phone."""

from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from bridge_support import Watched, delta, serving, status_event
from page_support import HOSTILE, is_live, live_hub, row, violations
from playwright.async_api import Page, expect
from pydantic import SecretStr

from schemas.dead_letter import DeadLetter, DeadLetterMark
from schemas.lane_report import LaneReport
from schemas.vocabulary import BreakerState, DeadLetterAction, FailureCategory, State
from websocket_bridge.hub import Hub
from websocket_bridge.messages import DeadLetterEntry
from websocket_bridge.tickets import Tickets

pytestmark = pytest.mark.browser

VIEWPORTS = {"desk": (1280, 800), "phone": (360, 700)}


def fill(hub: Hub) -> None:
    """Something of everything, with a hostile message among it."""
    now = datetime.now(UTC)
    for number, state in enumerate(State):
        at = now + timedelta(seconds=number)
        why = None if state in {State.QUEUED, State.COMPLETED} else FailureCategory.RATE_LIMITED
        message = HOSTILE if state is State.FAILED else None
        times = {"submitted_at": at, "occurred_at": at, "retry_at": at + timedelta(minutes=1)}
        hub.on_status(
            status_event(f"req-{state}", state, 2, attempt=1, provider="openai", reason=why, message=message, **times)
        )
    hub.on_delta(delta("req-processing", 0, "Once upon a time"))
    for second, breaker in enumerate((BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN)):
        at = now + timedelta(seconds=second)
        for provider in ("openai", "anthropic")[: second + 1]:
            hub.on_lane_report(
                LaneReport(provider=provider, worker="w", reported_at=at, interval_ms=1000, breaker=breaker, backlog=9)
            )
    letter = DeadLetter(
        request_id="dead", message=HOSTILE, original_topic="t", original_partition=0, original_offset=0, size_bytes=9
    )
    for offset, action in enumerate((None, DeadLetterAction.REDRIVEN, DeadLetterAction.PURGED)):
        hub.on_dead_letter(DeadLetterEntry(partition=0, offset=offset, at=now, letter=letter))
        if action is not None:
            hub.on_dead_letter_mark(DeadLetterMark(partition=0, offset=offset, action=action, at=now, by="mira@desk"))


async def looked_at(page: Page, where: str, found: dict[str, list[str]]) -> None:
    if problems := await violations(page):
        found[where] = problems


@pytest.mark.parametrize("size", VIEWPORTS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing(watched: Watched, size: str, scheme: str) -> None:
    """In each view, with the panel of a request open, with a breaker's line, and without a connection."""
    hub, metrics = live_hub()
    page = watched.page
    fill(hub)
    width, height = VIEWPORTS[size]
    found: dict[str, list[str]] = {}
    await page.set_viewport_size({"width": width, "height": height})
    await page.emulate_media(color_scheme="light" if scheme == "light" else "dark")
    async with serving(hub, metrics) as server:
        await page.goto(server.url)
        await is_live(page)
        await expect(row(page, "req-failed")).to_be_visible()
        await looked_at(page, "requests", found)
        await row(page, "req-processing").get_by_role("button").click()
        await expect(page.locator("#stream-text")).to_have_text("Once upon a time")
        hub.on_delta(delta("req-processing", 0, "Twice", attempt=2))
        hub.flush()
        await expect(page.locator("#voided del")).to_be_visible()
        await looked_at(page, "one request", found)
        await page.keyboard.press("Escape")
        await page.keyboard.press("2")
        await expect(page.locator("#lanes canvas").first).to_be_visible()
        at = datetime.now(UTC) + timedelta(seconds=30)
        hub.on_lane_report(LaneReport(provider="openai", worker="w", reported_at=at, interval_ms=1000))
        hub.flush()
        await expect(page.locator("#notice")).to_be_visible()
        await looked_at(page, "lanes", found)
        await page.keyboard.press("3")
        await expect(page.locator("#letters > li")).to_have_count(3)
        await expect(page.locator("#letters > li").first).to_contain_text(HOSTILE)
        await looked_at(page, "dead letters", found)
        for view in ("lanes", "letters", "requests"):
            await page.evaluate("name => document.querySelector(`#views [data-view=${name}]`).click()", view)
            assert await page.evaluate("document.documentElement.scrollWidth") <= width, view
    await expect(page.get_by_role("alert")).to_be_visible()
    await looked_at(page, "not connected", found)
    assert found == {}
    assert await page.evaluate("window.hacked") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_where_a_ticket_is_asked_for_or_nothing_has_happened(
    watched: Watched, scheme: Literal["light", "dark"]
) -> None:
    """The form, with what is wrong with a ticket; and each view while it is empty."""
    page = watched.page
    found: dict[str, list[str]] = {}
    await page.emulate_media(color_scheme=scheme)
    hub, metrics = live_hub(asks_for_tickets=True)
    async with serving(hub, metrics, tickets=Tickets(secret=SecretStr("of at least thirty-two bytes, this"))) as server:
        await page.goto(server.url)
        await page.get_by_label("Paste a ticket").fill("no ticket")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_contain_text("the ticket was refused")
        await looked_at(page, "ticket", found)
    hub, metrics = live_hub()
    async with serving(hub, metrics) as server:
        await page.goto(server.url)
        await is_live(page)
        for key in ("1", "2", "3"):
            await page.keyboard.press(key)
            await looked_at(page, f"empty view {key}", found)
    assert found == {}
