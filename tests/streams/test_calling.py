"""One call within its limits: exactly one outcome, whatever the provider does."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing

import pytest

from connectors.providers.base import Answered, Call, CallEvent, Failed, Text
from policy.catalogue import Timeouts
from schemas.request import Message
from schemas.vocabulary import FailureCategory, Role
from streams.calling import CallReport, make_call

LONG = Timeouts(first_token_seconds=60, stall_seconds=60, total_seconds=60)
ANSWER = Answered(text="ab", finish_reason="stop", model="m")


class Scripted:
    """A provider that yields what it is told; `None` in the script is silence for ever."""

    name = "scripted"

    def __init__(self, *script: CallEvent | None | Exception) -> None:
        self.script = script
        self.closed = False
        self.opened = asyncio.Event()

    def open(self, call: Call) -> AbstractAsyncContextManager[AsyncIterator[CallEvent]]:
        return aclosing(self._events())

    async def _events(self) -> AsyncGenerator[CallEvent, None]:
        self.opened.set()
        try:
            for step in self.script:
                if step is None:
                    await asyncio.Event().wait()
                elif isinstance(step, Exception):
                    raise step
                else:
                    yield step
        finally:
            self.closed = True

    async def close(self) -> None: ...


async def call(
    provider: Scripted, *, timeouts: Timeouts = LONG, deadline: float = 60, stream: bool = True
) -> CallReport:
    seen: list[str] = []

    async def on_text(text: str) -> None:
        seen.append(text)

    report = await make_call(
        provider,
        Call(request_id="r", attempt=1, model="m", messages=(Message(role=Role.USER, content="x"),), stream=stream),
        timeouts=timeouts,
        seconds_to_deadline=deadline,
        on_text=on_text,
    )
    assert provider.closed
    return report


def category(report: CallReport) -> FailureCategory:
    assert isinstance(report.outcome, Failed)
    return report.outcome.problem.category


async def test_an_answer_is_handed_on_with_the_time_of_its_first_piece() -> None:
    report = await call(Scripted(Text("a"), Text("b"), ANSWER))
    assert report.outcome == ANSWER
    assert report.first_token_seconds is not None
    assert report.first_token_seconds <= report.duration_seconds


@pytest.mark.parametrize(
    ("script", "timeouts", "expected"),
    [
        ((None,), Timeouts(first_token_seconds=0.01), FailureCategory.TIMEOUT_FIRST_TOKEN),
        ((Text("a"), None), Timeouts(stall_seconds=0.01), FailureCategory.TIMEOUT_STALL),
        ((Text("a"), None), Timeouts(total_seconds=0.01), FailureCategory.TIMEOUT_TOTAL),
        ((Text("a"),), LONG, FailureCategory.TRUNCATED),
        ((Text("a"), RuntimeError("bug")), LONG, FailureCategory.UNKNOWN),
    ],
)
async def test_each_way_of_not_ending_has_its_category_and_may_have_been_billed(
    script: tuple[CallEvent | None | Exception, ...], timeouts: Timeouts, expected: FailureCategory
) -> None:
    report = await call(Scripted(*script), timeouts=timeouts)
    assert category(report) is expected
    assert isinstance(report.outcome, Failed)
    assert report.outcome.possibly_billed


async def test_the_deadline_ends_a_call_that_its_own_limits_would_let_run() -> None:
    report = await call(Scripted(Text("a"), None), deadline=0.01)
    assert category(report) is FailureCategory.DEADLINE


async def test_without_streaming_a_slow_answer_is_no_missing_first_token() -> None:
    report = await call(Scripted(None), timeouts=Timeouts(first_token_seconds=0.001, total_seconds=0.05), stream=False)
    assert category(report) is FailureCategory.TIMEOUT_TOTAL


async def test_cancelling_closes_the_provider_and_is_not_swallowed() -> None:
    provider = Scripted(None)
    task = asyncio.create_task(call(provider))
    await provider.opened.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert provider.closed
