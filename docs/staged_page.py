"""States of the live page that are hard to come to by waiting, played to a bridge by hand. Used by make_screenshots."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from playwright.async_api import Page, expect

from schemas.attempt import Attempt, Problem, Usage
from schemas.dead_letter import DeadLetter, DeadLetterMark
from schemas.lane_report import LaneReport
from schemas.result import LLMResult, Timings
from schemas.vocabulary import AttemptOutcome, BreakerState, DeadLetterAction, FailureCategory, State
from websocket_bridge.hub import Hub
from websocket_bridge.messages import DeadLetterEntry, FeedState

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "bridge"))

from bridge_support import delta, make_hub, serving, status_event  # noqa: E402 - found by the line before

REQUESTS = 40
ENDS = (
    State.COMPLETED,
    State.COMPLETED,
    State.COMPLETED,
    State.FAILED,
    State.COMPLETED,
    State.CANCELLED,
    State.EXPIRED,
)
FIRST_TRY = "The first essay argues that a union is the best guard of the peace, and it does so by naming wh"
SECOND_TRY = "Both essays plead for the union. The first one is clearer: its sentences are short, and each carries one"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A state of the page. `open_id` is opened; `loses_the_bridge` at the end."""

    name: str
    open_id: str = ""
    view: str = "requests"
    on_a_phone: bool = False
    in_the_dark: bool = False
    loses_the_bridge: bool = False


STAGES = (
    Stage(name="superseded", open_id="essay-live"),
    Stage(name="timeline", open_id="essay-retried", in_the_dark=True),
    Stage(name="queued", open_id="essay-queued"),
    Stage(name="lanes", view="lanes"),
    Stage(name="lanes-dark", view="lanes", in_the_dark=True),
    Stage(name="dead-letters", view="letters"),
    Stage(name="stale", loses_the_bridge=True),
    Stage(name="phone", on_a_phone=True),
    Stage(name="phone-request", on_a_phone=True, open_id="essay-retried", in_the_dark=True),
)


@asynccontextmanager
async def staged(stage: Stage, page: Page) -> AsyncIterator[None]:
    """The page in this state, until the block ends."""
    hub, metrics, _ = make_hub()
    hub.on_feed(FeedState.LIVE)
    now = datetime.now(UTC)
    _requests(hub, now)
    _lanes(hub, now)
    _letters(hub, now)
    async with serving(hub, metrics) as server:
        opened = f"&open={stage.open_id}" if stage.open_id else ""
        await page.goto(f"{server.url}#view={stage.view}{opened}")
        await expect(page.get_by_role("status")).to_have_text("Live")
        hub.on_delta(delta("essay-live", 0, FIRST_TRY))
        hub.on_delta(delta("essay-live", 0, SECOND_TRY, attempt=2))
        _breaker_opens(hub, now)
        hub.flush()
        await expect(page.locator("#notice")).to_be_visible()
        if stage.open_id == "essay-live":
            await expect(page.locator("#voided del")).to_be_visible()
        if not stage.loses_the_bridge:
            yield
    if stage.loses_the_bridge:
        await expect(page.get_by_role("alert")).to_be_visible()
        yield


def _requests(hub: Hub, now: datetime) -> None:
    for number in range(REQUESTS):
        state = ENDS[number % len(ENDS)]
        at = now - timedelta(seconds=200 - 4 * number)
        name = f"essay-{number:03}"
        what = {"attempt": 1, "provider": "openai", "model": "gpt-5", "submitted_at": at, "user_id": "mira"}
        why = None if state is State.COMPLETED else FailureCategory.OVERLOADED
        took = 1.4 + number % 5 / 3
        hub.on_status(status_event(name, state, 3, occurred_at=at + timedelta(seconds=took), reason=why, **what))
        hub.on_result(_result(name, state, at, seconds=took, version=3))
    hub.on_status(status_event("essay-queued", State.QUEUED, submitted_at=now, occurred_at=now, provider="openai"))
    since = now - timedelta(seconds=6)
    live = {"provider": "openai", "model": "gpt-5", "submitted_at": since, "occurred_at": now - timedelta(seconds=2)}
    hub.on_status(status_event("essay-live", State.PROCESSING, 4, attempt=2, **live))
    retry = {"retry_at": now + timedelta(seconds=75), "reason": FailureCategory.RATE_LIMITED}
    hub.on_status(status_event("essay-waits", State.RETRY_SCHEDULED, 3, attempt=1, **live, **retry))
    at = now - timedelta(seconds=12)
    hub.on_status(
        status_event(
            "essay-retried",
            State.COMPLETED,
            5,
            attempt=2,
            provider="openai",
            submitted_at=at,
            occurred_at=at + timedelta(seconds=9),
        )
    )
    hub.on_result(_result("essay-retried", State.COMPLETED, at, seconds=3.1, version=5, retried=True))


def _result(name: str, state: State, at: datetime, *, seconds: float, version: int, retried: bool = False) -> LLMResult:
    begin = at + timedelta(seconds=0.4)
    attempts = []
    if retried:
        busy = Problem(category=FailureCategory.OVERLOADED, message="overloaded", retryable=True)
        attempts.append(_attempt(name, 1, begin, 1.2, outcome=AttemptOutcome.FAILED, problem=busy))
        begin += timedelta(seconds=4.6)
    paid = 0.00198 if state is State.COMPLETED else None
    outcome = AttemptOutcome.ANSWERED if state is State.COMPLETED else AttemptOutcome.FAILED
    attempts.append(
        _attempt(name, len(attempts) + 1, begin, seconds, outcome=outcome, cost_usd=paid, time_to_first_token_ms=410)
    )
    end = begin + timedelta(seconds=seconds + 0.03)
    total_ms = (end - at).total_seconds() * 1000
    provider_ms = sum(each.duration_ms for each in attempts)
    delayed_ms = 3400.0 if retried else 0.0
    return LLMResult(
        request_id=name,
        status=state,
        state_version=version,
        provider="openai",
        model="gpt-5",
        usage=Usage(input_tokens=812, output_tokens=96),
        cost_usd=paid,
        attempts=attempts,
        timings=Timings(
            queued_ms=40,
            waiting_ms=360,
            provider_ms=provider_ms,
            delayed_ms=delayed_ms,
            overhead_ms=total_ms - provider_ms - delayed_ms,
            total_ms=total_ms,
        ),
        submitted_at=at,
        finished_at=end,
    )


def _attempt(name: str, number: int, begin: datetime, seconds: float, **fields: object) -> Attempt:
    about = {"request_id": name, "attempt": number, "provider": "openai", "model": "gpt-5", "worker": "w-1"}
    times = {"started_at": begin, "ended_at": begin + timedelta(seconds=seconds), "duration_ms": seconds * 1000}
    return Attempt.model_validate(about | times | fields)


def _report(provider: str, at: datetime, step: int, **fields: object) -> LaneReport:
    wave = step % 17
    numbers = {
        "in_flight": 8 + wave % 5,
        "concurrency": 16,
        "waiting": wave,
        "backlog": 40 + 3 * wave,
        "answered": 8 + wave % 4,
    }
    times = {"call_ms_p50": 700 + 20 * wave, "call_ms_p95": 1900 + 60 * wave, "interval_ms": 2000, "reported_at": at}
    return LaneReport.model_validate({"provider": provider, "worker": "w-1", **numbers, **times, **fields})


def _lanes(hub: Hub, now: datetime) -> None:
    # The page draws what it sees itself: the rest comes when it is live, in `_breaker_opens`.
    for provider in ("anthropic", "openai"):
        hub.on_lane_report(_report(provider, now - timedelta(seconds=240), 0))


def _breaker_opens(hub: Hub, now: datetime) -> None:
    for step in range(1, 120):
        at = now - timedelta(seconds=240 - 2 * step)
        broken = step > 90
        trouble = {
            "breaker": BreakerState.OPEN,
            "breaker_reason": FailureCategory.OVERLOADED,
            "breaker_since": now - timedelta(seconds=60),
            "breaker_retry_at": now + timedelta(seconds=20),
            "answered": 0,
            "failed": 6 if step < 95 else 0,
            "in_flight": 0,
            "backlog": 40 + 4 * (step - 90),
        }
        hub.on_lane_report(_report("anthropic", at, step, **(trouble if broken else {})))
        hub.on_lane_report(_report("openai", at, step + 5))
        hub.flush()


def _letters(hub: Hub, now: datetime) -> None:
    said = ("max_tokens is too large", "the provider does not know this model", "no attempt is left", "overloaded")
    kinds = (
        FailureCategory.INVALID_REQUEST,
        FailureCategory.INVALID_REQUEST,
        FailureCategory.OVERLOADED,
        FailureCategory.OVERLOADED,
    )
    for number, (message, category) in enumerate(zip(said, kinds, strict=True)):
        letter = DeadLetter(
            request_id=f"essay-{3 + 7 * number:03}",
            tenant_id="press",
            category=category,
            message=message,
            original_topic="llm.requests",
            original_partition=1,
            original_offset=970 + number,
            provider="openai",
            model="gpt-5",
            attempt=number,
            redrive_count=number % 2,
            size_bytes=2210,
        )
        at = now - timedelta(minutes=9 - 2 * number)
        hub.on_dead_letter(DeadLetterEntry(partition=number, offset=41 + number, at=at, letter=letter))
    for number, action in ((0, DeadLetterAction.PURGED), (2, DeadLetterAction.REDRIVEN)):
        at = now - timedelta(minutes=2)
        hub.on_dead_letter_mark(
            DeadLetterMark(partition=number, offset=41 + number, action=action, at=at, by="mira@desk")
        )
