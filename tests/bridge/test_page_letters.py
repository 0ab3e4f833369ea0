"""The page's view of dead letters, in a real Chromium; and what `sluice dlq` did with them, over a real Kafka."""

from datetime import timedelta

import pytest
from bridge_deployment import Deployment, running
from bridge_support import SUBMITTED_AT, Watched, serving
from page_support import HOSTILE, is_live, live_hub
from playwright.async_api import expect

from connectors.kafka.topics_admin import create_topics
from schemas.dead_letter import DeadLetter, DeadLetterMark
from schemas.vocabulary import DeadLetterAction, FailureCategory
from tests.cli.dlq_support import DeadLetterTopics
from tests.cli.processes import sluice
from websocket_bridge.messages import DeadLetterEntry

pytestmark = pytest.mark.browser


def letter(offset: int) -> DeadLetterEntry:
    about = DeadLetter(
        request_id=f"essay-{offset}",
        category=FailureCategory.INVALID_REQUEST,
        message="max_tokens is too large",
        original_topic="llm.requests",
        original_partition=1,
        original_offset=offset,
        size_bytes=2210,
    )
    return DeadLetterEntry(partition=2, offset=offset, at=SUBMITTED_AT + timedelta(seconds=offset), letter=about)


def mark(offset: int, action: DeadLetterAction, by: str) -> DeadLetterMark:
    at = SUBMITTED_AT + timedelta(minutes=5)
    return DeadLetterMark(partition=2, offset=offset, action=action, at=at, by=by)


async def test_dead_letters_are_listed_and_lead_to_their_request(watched: Watched) -> None:
    """Newest first, by headers, each once, also over a reconnect."""
    hub, metrics = live_hub()
    page = watched.page
    hub.on_dead_letter(letter(1))
    async with serving(hub, metrics) as server:
        port = server.port
        await page.goto(f"{server.url}#view=letters")
        letters = page.locator("#letters > li")
        await expect(letters).to_have_count(1)
        hub.on_dead_letter(letter(2))
        hub.flush()
        await expect(letters.locator(".id")).to_have_text(["essay-2", "essay-1"])
    async with serving(hub, metrics, port=port):
        await is_live(page)
        await expect(letters).to_have_count(2)
        await page.get_by_role("button", name="essay-2").click()
        await expect(page.locator("#detail")).to_contain_text("essay-2")


async def test_a_letter_that_was_redriven_or_purged_says_so_and_counts_as_open_no_more(watched: Watched) -> None:
    """By whom, at once, without losing the reader's focus; and what happened while the page was away."""
    hub, metrics = live_hub()
    page = watched.page
    for offset in (1, 2, 3):
        hub.on_dead_letter(letter(offset))
    badge, letters = page.locator("#letters-badge"), page.locator("#letters > li")
    async with serving(hub, metrics) as server:
        port = server.port
        await page.goto(f"{server.url}#view=letters")
        await expect(badge).to_have_text("3")
        focused = page.get_by_role("button", name="essay-2")
        await focused.focus()
        hub.on_dead_letter_mark(mark(1, DeadLetterAction.REDRIVEN, HOSTILE))
        hub.flush()
        await expect(letters.filter(has_text="essay-1")).to_contain_text("Redriven")
        await expect(letters.filter(has_text="essay-1")).to_contain_text(f"by {HOSTILE}")
        await expect(badge).to_have_text("2")
        hub.on_dead_letter(letter(4))
        hub.flush()
        await expect(letters.locator(".id")).to_have_text(["essay-4", "essay-3", "essay-2", "essay-1"])
        await expect(focused).to_be_focused()
    hub.on_dead_letter_mark(mark(3, DeadLetterAction.PURGED, "noor@desk"))
    async with serving(hub, metrics, port=port):
        await is_live(page)
        await expect(letters.filter(has_text="essay-3")).to_contain_text("by noor@desk")
        await expect(badge).to_have_text("2")
        await page.get_by_role("button", name="Open only").click()
        await expect(letters.locator(".id")).to_have_text(["essay-4", "essay-2"])
        await expect(page.locator("#letters-shown")).to_have_text("2 open of 4")
        await page.reload()
        await expect(letters.locator(".id")).to_have_text(["essay-4", "essay-2"])
        for offset in (2, 4):
            hub.on_dead_letter_mark(mark(offset, DeadLetterAction.REDRIVEN, "mira@desk"))
        hub.flush()
        await expect(page.get_by_text("No dead letter is open.")).to_be_visible()
        await expect(badge).to_be_hidden()
    assert await page.evaluate("window.hacked") is None


@pytest.mark.integration
async def test_what_sluice_dlq_does_with_a_letter_is_on_the_page(watched: Watched, deployment: Deployment) -> None:
    """Redriven and purged by the real command, while the page looks; and a bridge that starts later knows it too."""
    settings, page = deployment.settings(), watched.page
    await create_topics(settings, settings.topics.specs([]))
    topics = DeadLetterTopics(settings)
    await topics.write(*(topics.letter(f"essay-{number}") for number in range(3)))
    letters = page.locator("#letters > li")
    async with running(deployment) as run:
        await page.goto(f"{run.bridge.url}#view=letters")
        await expect(letters).to_have_count(3)
        for action, number in (("redrive", 0), ("purge", 1)):
            done = await sluice("dlq", action, f"essay-{number}", "--yes", environment=topics.environment)
            assert done.exit_code == 0, done.stderr
        await expect(letters.filter(has_text="essay-0")).to_contain_text("Redriven")
        await expect(letters.filter(has_text="essay-1")).to_contain_text("Purged")
    async with running(deployment) as run:
        await page.goto(f"{run.bridge.url}#view=letters")
        await expect(letters).to_have_count(3)
        await expect(letters.filter(has_text="essay-0")).to_contain_text("Redriven")
        await expect(page.locator("#letters-badge")).to_have_text("1")
