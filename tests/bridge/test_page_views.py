"""The page's views of one request and of the connection, in a real Chromium."""

from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from bridge_support import SUBMITTED_AT, Kafka, ShiftedClock, Watched, delta, serving, status_event
from page_support import counter, is_live, live_hub, row
from playwright.async_api import expect
from pydantic import SecretStr

from schemas.attempt import Attempt, Problem, Usage
from schemas.result import LLMResult, Timings
from schemas.vocabulary import AttemptOutcome, FailureCategory, State
from websocket_bridge.resuming import DELTAS, STATUS
from websocket_bridge.tickets import Tickets

pytestmark = pytest.mark.browser

SECRET = "a secret of at least thirty-two bytes"  # noqa: S105 - of this test alone


def attempt(number: int, start_seconds: float, seconds: float, **fields: Any) -> Attempt:
    started_at = SUBMITTED_AT + timedelta(seconds=start_seconds)
    defaults: dict[str, Any] = {"outcome": AttemptOutcome.ANSWERED, "cost_usd": 0.00198}
    return Attempt(
        request_id="req-1",
        attempt=number,
        provider="openai",
        model="gpt-5",
        started_at=started_at,
        ended_at=started_at + timedelta(seconds=seconds),
        duration_ms=seconds * 1000,
        worker="w-1",
        **(defaults | fields),
    )


def result(**fields: Any) -> LLMResult:
    failed = attempt(
        1,
        1,
        2,
        outcome=AttemptOutcome.FAILED,
        cost_usd=None,
        problem=Problem(category=FailureCategory.OVERLOADED, message="busy", retryable=True),
    )
    defaults: dict[str, Any] = {
        "request_id": "req-1",
        "status": State.COMPLETED,
        "state_version": 5,
        "provider": "openai",
        "model": "gpt-5",
        "usage": Usage(input_tokens=812, output_tokens=96),
        "cost_usd": 0.00198,
        "attempts": [failed, attempt(2, 8, 2.5, time_to_first_token_ms=410)],
        "timings": Timings(
            queued_ms=400, waiting_ms=600, provider_ms=4500, delayed_ms=5000, overhead_ms=1000, total_ms=10_500
        ),
        "submitted_at": SUBMITTED_AT,
        "finished_at": SUBMITTED_AT + timedelta(seconds=10.5),
    }
    return LLMResult(**(defaults | fields))


async def test_the_timeline_of_a_request_tells_where_its_time_and_money_went(watched: Watched) -> None:
    """Queued, waiting, each attempt with its outcome, the wait between, the end; a result before its status waits."""
    hub, metrics = live_hub()
    page = watched.page
    async with serving(hub, metrics) as server:
        await page.goto(f"{server.url}#open=req-1")
        await is_live(page)
        steps = page.locator("#timeline > li")
        hub.on_status(status_event("req-1"))
        await expect(steps).to_have_count(1)
        hub.on_status(status_event("req-1", State.PROCESSING, 2, attempt=1, provider="openai"))
        await expect(steps).to_have_count(2)
        retry_at = datetime.now(UTC) + timedelta(minutes=2)
        why = FailureCategory.OVERLOADED
        hub.on_status(status_event("req-1", State.RETRY_SCHEDULED, 3, attempt=1, retry_at=retry_at, reason=why))
        await expect(steps.last).to_contain_text("overloaded")
        countdown = steps.last.locator(".step-detail")
        await expect(countdown).to_contain_text("in 1 min")
        first = await countdown.text_content() or ""
        await expect(countdown).not_to_have_text(first)

        hub.on_result(result())
        hub.on_status(status_event("req-1", State.COMPLETED, 5, attempt=2, provider="openai", model="gpt-5"))
        await expect(steps.locator(".label")).to_have_text(
            [
                "Queued",
                "Waiting in the lane",
                "Attempt 1: openai",
                "Waiting for the next attempt",
                "Attempt 2: openai",
                "Completed",
            ]
        )
        await expect(steps.nth(2)).to_contain_text("overloaded · cost unknown")
        await expect(steps.nth(4)).to_contain_text("first token after 410 ms · $0.00198")
        await expect(steps.locator(".took").nth(3)).to_have_text("5.0 s")
        facts = page.locator("#facts")
        await expect(facts).to_contain_text("Overhead1.0 s")
        await expect(facts).to_contain_text("Provider's time4.5 s of 11 s")
        await expect(row(page, "req-1").locator(".c-elapsed")).to_have_text("11 s")
    assert watched.complaints == []


async def test_a_cost_that_nobody_knows_is_called_unknown(watched: Watched) -> None:
    """In the table and in the panel; a request without a call has none."""
    hub, metrics = live_hub()
    page = watched.page
    for name, attempts in (("req-1", [attempt(1, 1, 2, cost_usd=None)]), ("refused", [])):
        hub.on_status(status_event(name, State.COMPLETED, 5))
        hub.on_result(result(request_id=name, cost_usd=None, attempts=attempts))
    hub.on_status(status_event("paid", State.COMPLETED, 5))
    hub.on_result(result(request_id="paid", cost_usd=1.5))
    async with serving(hub, metrics) as server:
        await page.goto(f"{server.url}#open=req-1")
        await expect(row(page, "paid").locator(".c-cost")).to_have_text("$1.50")
        await expect(page.locator("#facts")).to_contain_text("Costunknown")
        await page.keyboard.press("Escape")
        await expect(row(page, "req-1").locator(".c-cost")).to_have_text("unknown")
        await expect(row(page, "refused").locator(".c-cost")).to_have_text("—")


async def test_a_bridge_with_keys_gets_a_ticket_from_the_reader(watched: Watched) -> None:
    """It is asked for in a field, never stands in the address, and shows what its scope may see."""
    hub, metrics = live_hub(asks_for_tickets=True)
    page = watched.page
    hub.on_status(status_event("mine", tenant_id="press"))
    hub.on_status(status_event("other", tenant_id="else"))
    claims = {"scope": "tenant", "tenant_id": "press", "sub": "mira", "exp": datetime.now(UTC) + timedelta(minutes=5)}
    async with serving(hub, metrics, tickets=Tickets(secret=SecretStr(SECRET))) as server:
        await page.goto(server.url)
        field = page.get_by_label("Paste a ticket")
        await field.fill("no ticket")
        await field.press("Enter")
        await expect(page.get_by_role("alert")).to_contain_text("the ticket was refused")
        await expect(field).to_be_visible()
        await field.fill(jwt.encode(claims, SECRET, "HS256"))
        await field.press("Enter")
        await is_live(page)
        await expect(row(page, "mine")).to_contain_text("Queued")
        await expect(page.locator("#rows tr")).to_have_count(1)
        await expect(field).to_be_hidden()
        await page.keyboard.press("3")
        await expect(page.get_by_text("shown to operators only")).to_be_visible()
        assert "ey" not in page.url.removeprefix(server.url)


async def test_a_ticket_that_expires_in_mid_stream_is_asked_for_anew_and_nothing_is_missed(watched: Watched) -> None:
    """What there is stays on the page, as of when; with a new ticket it goes on where it was."""
    clock, kafka = ShiftedClock(), Kafka()
    hub, metrics = live_hub(asks_for_tickets=True, clock=clock)
    page = watched.page
    kafka.begin(hub)
    hub.on_status(status_event("req-1", State.PROCESSING, 2, attempt=1), kafka.spot(STATUS))

    def ticket(seconds: int) -> str:
        return jwt.encode({"scope": "operator", "exp": datetime.now(UTC) + timedelta(seconds=seconds)}, SECRET, "HS256")

    def say(seq: int) -> None:
        hub.on_delta(delta("req-1", seq, f"{seq} "), kafka.spot(DELTAS))
        hub.flush()

    async with serving(hub, metrics, tickets=Tickets(secret=SecretStr(SECRET))) as server:
        await page.goto(f"{server.url}#open=req-1")
        field = page.get_by_label("Paste a ticket")
        await field.fill(ticket(60))
        await field.press("Enter")
        await is_live(page)
        say(0)
        await expect(page.locator("#stream-text")).to_have_text("0 ")
        clock.seconds += 61
        hub.sweep()
        alert = page.get_by_role("alert")
        await expect(alert).to_contain_text("your ticket has expired. What you see is as of")
        say(1)
        await expect(page.locator("#stream-text")).to_have_text("0 ")
        await field.fill(ticket(600))
        await field.press("Enter")
        await is_live(page)
        await expect(page.locator("#stream-text")).to_have_text("0 1 ")
        await expect(field).to_be_hidden()
        await expect(alert).to_be_hidden()


async def test_what_a_new_bridge_does_not_know_is_not_shown_as_live(watched: Watched) -> None:
    """After a gap a request that had not ended and is unknown now goes; what had ended stays."""
    hub, metrics = live_hub()
    page = watched.page
    hub.on_status(status_event("gone"))
    hub.on_status(status_event("ended", State.COMPLETED, 3))
    async with serving(hub, metrics) as server:
        port = server.port
        await page.goto(server.url)
        await expect(page.locator("#rows tr")).to_have_count(2)
    fresh, metrics = live_hub()
    async with serving(fresh, metrics, port=port):
        await is_live(page)
        await expect(page.locator("#rows tr")).to_have_count(1)
        await expect(row(page, "ended")).to_contain_text("Completed")
        await expect(counter(page, State.QUEUED)).to_have_text("0")


async def test_an_answer_goes_on_where_the_network_came_back(watched: Watched) -> None:
    """While there is none the page says since when what it shows is old; then it is live again with all of it."""
    hub, metrics = live_hub()
    page = watched.page
    hub.on_status(status_event("req-1", State.PROCESSING, 2, attempt=1))
    async with serving(hub, metrics) as server:
        port = server.port
        await page.goto(f"{server.url}#open=req-1")
        hub.on_delta(delta("req-1", 0, "one "))
        hub.flush()
        await expect(page.locator("#stream-text")).to_have_text("one ")
        await page.context.set_offline(True)
    await expect(page.get_by_role("status")).to_have_text("Offline, reconnecting")
    await expect(page.get_by_role("alert")).to_contain_text("What you see is as of")
    hub.on_delta(delta("req-1", 1, "two"))
    async with serving(hub, metrics, port=port):
        await page.context.set_offline(False)
        await is_live(page)
        await expect(page.locator("#stream-text")).to_have_text("one two")
        await expect(page.get_by_role("alert")).to_be_hidden()
