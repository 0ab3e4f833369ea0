"""The page, in a real Chromium, with events fed through the hub."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from bridge_support import HubOptions, Watched, delta, serving, status_event
from page_support import HOSTILE, counter, is_live, live_hub, row
from playwright.async_api import expect

from schemas.result import Timings
from schemas.vocabulary import FailureCategory, State
from websocket_bridge.closing import Close
from websocket_bridge.messages import FeedState

pytestmark = pytest.mark.browser


async def test_a_row_goes_from_queued_to_completed_without_reload(watched: Watched) -> None:
    """It appears, moves through its states with provider and attempt, and the counters move with it."""
    hub, metrics = live_hub()
    page = watched.page
    async with serving(hub, metrics) as server:
        await page.goto(server.url)
        await is_live(page)
        await page.evaluate("window.notReloaded = true")
        await expect(page.get_by_text("No requests yet.")).to_be_visible()

        hub.on_status(status_event("req-1"))
        await expect(row(page, "req-1")).to_contain_text("Queued")
        await expect(counter(page, State.QUEUED)).to_have_text("1")

        hub.on_status(status_event("req-1", State.PROCESSING, 2, attempt=1, provider="openai", model="gpt-5"))
        await expect(row(page, "req-1")).to_contain_text("Processing")
        await expect(row(page, "req-1")).to_contain_text("openai")

        timings = Timings(queued_ms=5, waiting_ms=10, provider_ms=1200, overhead_ms=34, total_ms=1234)
        done = status_event("req-1", State.COMPLETED, 3, attempt=1, provider="openai", model="gpt-5", timings=timings)
        hub.on_status(done)
        await expect(row(page, "req-1")).to_contain_text("Completed")
        await expect(row(page, "req-1").locator(".c-elapsed")).to_have_text("1.2 s")
        await expect(counter(page, State.QUEUED)).to_have_text("0")
        await expect(counter(page, State.COMPLETED)).to_have_text("1")

        hub.on_status(status_event("req-1", State.PROCESSING, 2, attempt=1))
        assert await page.evaluate("window.notReloaded")
    assert all(url.startswith(("http://127.0.0.1", "ws://127.0.0.1")) for url in watched.requested)


async def test_a_live_request_ticks_and_a_retry_counts_down(watched: Watched) -> None:
    """Elapsed time and the time until the next attempt move without any event."""
    hub, metrics = live_hub()
    page = watched.page
    now = datetime.now(UTC)
    retry_at = now + timedelta(minutes=3)
    async with serving(hub, metrics) as server:
        await page.goto(server.url)
        await is_live(page)
        hub.on_status(
            status_event(
                "req-1",
                State.RETRY_SCHEDULED,
                submitted_at=now,
                occurred_at=now,
                retry_at=retry_at,
                reason=FailureCategory.RATE_LIMITED,
            )
        )
        note, elapsed = row(page, "req-1").locator(".c-note"), row(page, "req-1").locator(".c-elapsed")
        await expect(note).to_have_text(re.compile(r"Next attempt in [23] min \d\d s \(rate limited\)"))
        first_note, first_elapsed = await note.text_content(), await elapsed.text_content()
        await expect(note).not_to_have_text(first_note)
        await expect(elapsed).not_to_have_text(first_elapsed)


async def test_hostile_text_is_shown_as_text(watched: Watched) -> None:
    """Markup in every free field, and in the answer, is text: nothing runs, nothing is fetched, CSP has no work."""
    hub, metrics = live_hub()
    page = watched.page
    async with serving(hub, metrics) as server:
        await page.goto(server.url)
        await is_live(page)
        failed = status_event("req-1", State.FAILED, 2, message=HOSTILE, model=HOSTILE, provider="openai")
        hub.on_status(failed)
        await row(page, "req-1").get_by_role("button").click()
        await expect(page.get_by_text("No text came by.")).to_be_visible()
        hub.on_delta(delta("req-1", 0, HOSTILE))
        await expect(page.locator("#stream-text")).to_have_text(HOSTILE)
        await expect(row(page, "req-1").locator(".c-note")).to_have_text(HOSTILE)
        await expect(page.locator("#detail-message")).to_have_text(HOSTILE)
        assert await page.locator("main img, main script").count() == 0
        assert await page.evaluate("window.hacked") is None
    assert not [url for url in watched.requested if url.endswith("/x")]
    assert watched.complaints == []


async def test_the_page_comes_back_after_the_bridge_was_restarted(watched: Watched) -> None:
    """It says that it is not connected, reconnects by itself, and shows what happened meanwhile."""
    hub, metrics = live_hub()
    page = watched.page
    async with serving(hub, metrics) as server:
        port = server.port
        await page.goto(server.url)
        await is_live(page)
        await page.evaluate("window.notReloaded = true")
        hub.on_status(status_event("req-1", State.PROCESSING, 2))
        await expect(row(page, "req-1")).to_contain_text("Processing")
        await row(page, "req-1").get_by_role("button").click()
    await expect(page.get_by_role("status")).to_have_text("Reconnecting")
    await expect(page.get_by_role("alert")).to_contain_text("What you see is as of")

    restarted, metrics = live_hub()
    restarted.on_status(status_event("req-1", State.COMPLETED, 3))
    restarted.on_status(status_event("req-2"))
    restarted.on_delta(delta("req-1", 0, "All of it."))
    async with serving(restarted, metrics, port=port):
        await is_live(page)
        await expect(row(page, "req-1")).to_contain_text("Completed")
        await expect(row(page, "req-2")).to_contain_text("Queued")
        await expect(page.locator("#stream-text")).to_have_text("All of it.")
        await expect(page.get_by_role("alert")).to_be_hidden()
        restarted.on_status(status_event("req-2", State.PROCESSING, 2))
        await expect(row(page, "req-2")).to_contain_text("Processing")
        assert await page.evaluate("window.notReloaded")


async def test_a_bridge_that_knows_less_does_not_set_the_page_back(watched: Watched) -> None:
    """After a reconnect to a bridge that is behind, what the page saw last stays; newer versions go on from there."""
    hub, metrics = live_hub()
    page = watched.page
    async with serving(hub, metrics) as server:
        port = server.port
        await page.goto(server.url)
        hub.on_status(status_event("req-1", State.RETRY_SCHEDULED, 3, attempt=1))
        await expect(row(page, "req-1")).to_contain_text("Retry scheduled")
    behind, metrics = live_hub()
    behind.on_status(status_event("req-1", State.PROCESSING, 2, attempt=1))
    behind.on_status(status_event("req-2"))
    async with serving(behind, metrics, port=port):
        await expect(row(page, "req-2")).to_contain_text("Queued")
        await expect(row(page, "req-1")).to_contain_text("Retry scheduled")
        await expect(counter(page, State.PROCESSING)).to_have_text("0")
        behind.on_status(status_event("req-1", State.QUEUED, 4, attempt=1))
        await expect(row(page, "req-1")).to_contain_text("Queued")


async def test_the_client_goes_by_the_documented_close_codes(watched: Watched) -> None:
    """It comes back after each code that says so, and never after the others."""
    hub, metrics = live_hub()
    async with serving(hub, metrics) as server:
        await watched.page.goto(server.url)
        codes = [close.code for close in Close]
        may = await watched.page.evaluate(
            """async (codes) => {
                const { mayReconnect } = await import("/client/sluice-client.js");
                return codes.map(mayReconnect);
            }""",
            codes,
        )
    assert dict(zip(codes, may, strict=True)) == {close.code: close.reconnect for close in Close}


async def test_the_answer_of_the_open_request_appears_as_it_arrives(watched: Watched) -> None:
    """Joining in mid-stream shows what came before; a later attempt clears it and says so."""
    hub, metrics = live_hub()
    page = watched.page
    hub.on_status(status_event("req-1", State.PROCESSING, 2))
    hub.on_delta(delta("req-1", 0, "Once "))
    async with serving(hub, metrics) as server:
        await page.goto(server.url)
        await row(page, "req-1").get_by_role("button").click()
        await expect(page.locator("#stream-text")).to_have_text("Once ")
        hub.on_delta(delta("req-1", 1, "upon"))
        await expect(page.locator("#stream-text")).to_have_text("Once upon")
        hub.on_delta(delta("req-1", 0, "Twice", attempt=2))
        hub.on_delta(delta("req-1", 2, " a time", attempt=1))
        await expect(page.locator("#stream-text")).to_have_text("Twice")
        await expect(page.locator("#stream-note")).to_contain_text("the text of attempt 1 is void")
        await expect(page.locator("#voided del")).to_have_text("Once upon")


async def test_the_filter_and_the_counters_choose_rows(watched: Watched) -> None:
    """Typing and pressing a counter narrow the table, and a reload keeps both and the open request."""
    hub, metrics = live_hub()
    page = watched.page
    hub.on_status(status_event("apple", State.COMPLETED, 3, provider="openai"))
    hub.on_status(status_event("pear", State.FAILED, 3, provider="anthropic"))
    hub.on_status(status_event("quince", State.COMPLETED, 3, provider="anthropic"))
    rows = page.locator("#rows tr")
    async with serving(hub, metrics) as server:
        await page.goto(server.url)
        await expect(rows).to_have_count(3)
        await page.get_by_label("Filter requests").fill("ANTHROPIC")
        await expect(rows).to_have_count(2)
        await page.get_by_role("button", name="Completed").click()
        await expect(rows).to_have_count(1)
        await expect(page.get_by_text("1 of 3 requests")).to_be_visible()
        await row(page, "quince").get_by_role("button").click()
        await page.reload()
        await expect(rows).to_have_count(1)
        await expect(page.locator("#detail")).to_contain_text("quince")
        await expect(page.get_by_role("button", name="Completed")).to_have_attribute("aria-pressed", "true")
        await page.get_by_role("button", name="Completed").click()
        await page.get_by_label("Filter requests").fill("nothing like it")
        await expect(page.get_by_text("No request matches the filter.")).to_be_visible()


async def test_ids_in_the_address_are_all_that_is_followed(watched: Watched) -> None:
    """Where everything is refused the page says so; with ids in its address it shows these."""
    hub, metrics = live_hub(HubOptions(allow_all=False))
    page = watched.page
    async with serving(hub, metrics) as server:
        await page.goto(server.url)
        await expect(page.get_by_role("alert")).to_contain_text("by id only")
        await is_live(page)
        await page.goto(f"{server.url}?request_id=mine,other")
        await expect(page.get_by_text("Nothing is known yet of mine, other.")).to_be_visible()
        hub.on_status(status_event("not-mine"))
        hub.on_status(status_event("mine"))
        await expect(row(page, "mine")).to_contain_text("Queued")
        await expect(page.locator("#rows tr")).to_have_count(1)
        await page.goto(f"{server.url}?request_id=no{{such}}id")
        await expect(page.get_by_role("alert")).to_contain_text("The bridge refuses what the address asks for")


async def test_the_page_says_when_the_bridge_lost_kafka(watched: Watched) -> None:
    """A connection to a bridge that sees nothing is not called live."""
    hub, metrics = live_hub()
    page = watched.page
    async with serving(hub, metrics) as server:
        await page.goto(server.url)
        await is_live(page)
        hub.on_feed(FeedState.AWAY)
        await expect(page.get_by_role("status")).to_have_text("Connected, but Kafka is away")
        await expect(page.get_by_role("alert")).to_contain_text("gets nothing from Kafka")
        hub.on_feed(FeedState.LIVE)
        await is_live(page)
        await expect(page.get_by_role("alert")).to_be_hidden()


async def test_everything_can_be_done_with_the_keyboard(watched: Watched) -> None:
    """j and k move by rows, Enter opens the details, Escape closes them and returns, / goes to the filter."""
    hub, metrics = live_hub()
    page = watched.page
    for number in range(3):
        at = datetime(2026, 11, 21, 12, 0, number, tzinfo=UTC)
        hub.on_status(status_event(f"r{number}", submitted_at=at, occurred_at=at))
    async with serving(hub, metrics) as server:
        await page.goto(server.url)
        await expect(page.locator("#rows tr")).to_have_count(3)
        for key in ("j", "j", "j", "k"):
            await page.keyboard.press(key)
        await expect(page.get_by_role("button", name="r1", exact=True)).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("#detail")).to_contain_text("r1")
        await expect(page.get_by_role("button", name="r1", exact=True)).to_have_attribute("aria-expanded", "true")
        await page.keyboard.press("Escape")
        await expect(page.locator("#detail")).to_be_hidden()
        await expect(page.get_by_role("button", name="r1", exact=True)).to_be_focused()
        await page.keyboard.press("/")
        await expect(page.get_by_label("Filter requests")).to_be_focused()


@pytest.mark.parametrize("width", [320, 390, 820])
async def test_nothing_is_cut_off_at_phone_width(watched: Watched, width: int) -> None:
    """No sideways scrolling, and the table stays a table for assistive technology."""
    hub, metrics = live_hub()
    page = watched.page
    long_id = "x" * 128
    hub.on_status(status_event(long_id, State.FAILED, 2, message="y" * 500, model="z" * 200, provider="openai"))
    await page.set_viewport_size({"width": width, "height": 700})
    async with serving(hub, metrics) as server:
        await page.goto(server.url)
        await expect(page.get_by_role("table").get_by_role("row")).to_have_count(2)
        await expect(page.get_by_role("rowheader")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        await page.get_by_role("button", name=long_id).click()
        await expect(page.locator("#detail")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
    assert watched.complaints == []
