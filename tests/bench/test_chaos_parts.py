"""The instruments of the chaos run: the same seed gives the same run, and the provider's journal tells the truth."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from bench.chaos_run.evidence import read_calls
from bench.chaos_run.faults import FAULTS, needs_clocks, needs_role, sequence
from bench.chaos_run.load import plan
from bench.chaos_run.logs import Call
from bench.chaos_run.network import Network, Proxy
from bench.chaos_run.provider import ChaosProvider, Journal, Weather
from schemas.vocabulary import DuplicatePolicy, Kind
from sluice.stack import ports


def test_the_same_seed_draws_the_same_requests() -> None:
    """And another seed draws others."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    first, again, other = (plan(seed=seed, requests=200, rounds=4) for seed in (7, 7, 8))
    assert [one.request(now) for one in first] == [one.request(now) for one in again]
    assert first != other


def test_a_plan_has_every_kind_of_request_and_spreads_them_over_the_rounds() -> None:
    """What is not sent is not tested."""
    planned = plan(seed=1, requests=1000, rounds=4)
    assert [sum(one.round == number for one in planned) for number in range(4)] == [250] * 4
    drafts = [one.draft for one in planned]
    assert {draft.kind for draft in drafts} == set(Kind)
    assert {draft.provider for draft in drafts} == {None, "alpha", "beta"}
    assert {draft.duplicate_policy for draft in drafts} == set(DuplicatePolicy)
    assert {draft.stream for draft in drafts} == {draft.allow_failover for draft in drafts} == {True, False}
    assert not any(draft.allow_failover and draft.provider for draft in drafts)
    assert len({draft.priority for draft in drafts}) == 3
    for has in (
        [one.copy_after_seconds == 0 for one in planned],
        [(one.copy_after_seconds or 0) > 1 for one in planned],
        [one.deadline_seconds is not None for one in planned],
        [one.cancel_after_seconds is not None for one in planned],
    ):
        assert any(has)
        assert not all(has)


def test_each_fault_comes_once_before_any_comes_again() -> None:
    """In an order that the seed draws."""
    names = list(FAULTS)
    drawn = sequence(names, rounds=2 * len(names) + 1, seed=3)
    assert sorted(drawn[: len(names)]) == sorted(drawn[len(names) : 2 * len(names)]) == sorted(names)
    assert drawn == sequence(names, rounds=2 * len(names) + 1, seed=3)
    assert drawn != sequence(names, rounds=2 * len(names) + 1, seed=4)


def test_faults_say_what_they_need() -> None:
    """A version without a role cannot have it killed, a machine without the library no clock stepped."""
    assert [name for name in FAULTS if needs_clocks(name)] == ["clock-ahead", "clock-behind"]
    assert needs_role("kill-control") == "control"
    assert needs_role("kill-everybody") is needs_role("freeze-one-of-each") is None
    assert needs_role("broker-kill") is None


class Bench:
    """A provider and its proxy in this process."""

    def __init__(self, port: int, network_port: int, journal: Path) -> None:
        self.port = port
        self.network_port = network_port
        self.journal = journal

    async def weather(self, weather: Weather) -> None:
        url = f"http://127.0.0.1:{self.port}/weather"
        async with aiohttp.ClientSession() as session, session.post(url, json=weather.as_json()) as response:
            assert response.status == 200

    async def ask(self, *, take_ms: int = 1, stream: bool = False, seconds: float = 5) -> tuple[int, str | None, str]:
        """Status, `x-request-id` and body."""
        url = f"http://127.0.0.1:{self.network_port}/v1/chat/completions"
        body = {"messages": [{"role": "user", "content": f"[[r-1 {take_ms}]] x"}], "stream": stream}
        timeout = aiohttp.ClientTimeout(total=seconds)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, json=body) as response,
        ):
            return response.status, response.headers.get("x-request-id"), await response.text()

    async def ended_calls(self, count: int) -> list[Call]:
        """The journal, once so many calls have ended in it."""
        async with asyncio.timeout(5):
            while True:
                calls = read_calls(self.journal)
                if sum(call.ended is not None for call in calls) >= count:
                    return calls
                await asyncio.sleep(0.01)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Bench]:
    port, network_port = ports.choose(2)
    bench = Bench(port, network_port, folder / "journal.jsonl")
    proxy = Proxy(port=network_port, upstream_port=port)
    provider = ChaosProvider("alpha", Journal(str(bench.journal)), proxy, seed=1)
    runner = web.AppRunner(provider.app(), handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await proxy.start()
    try:
        yield bench
    finally:
        await proxy.close()
        await runner.cleanup()


def _said(text: str, *, stream: bool) -> str:
    if not stream:
        return str(json.loads(text)["choices"][0]["message"]["content"])
    chunks = [json.loads(line) for line in text.replace("data: ", "").split("\n\n") if line.startswith("{")]
    return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_quotes_its_request_and_its_call_and_is_in_the_journal(tmp_path: Path, stream: bool) -> None:
    """So that an answer that went astray can be told."""
    async with running(tmp_path) as bench:
        status, call_id, text = await bench.ask(stream=stream)
        (call,) = await bench.ended_calls(1)
    assert (status, call_id) == (200, "alpha-1")
    assert _said(text, stream=stream) == "This answers r-1 by call alpha-1."
    assert (call.call, call.request_id, call.status, call.is_refusal) == ("alpha-1", "r-1", 200, False)


async def test_errors_are_refusals_with_the_calls_name(tmp_path: Path) -> None:
    """429 says when to come back."""
    async with running(tmp_path) as bench:
        await bench.weather(Weather(errors=1.0))
        seen = [await bench.ask() for _ in range(20)]
        calls = await bench.ended_calls(20)
    assert {status for status, _, _ in seen} == {429, 500, 503}
    assert [call.call for call in calls] == [call_id for _, call_id, _ in seen]
    assert all(call.is_refusal for call in calls)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_is_cut_was_made_all_the_same(tmp_path: Path, stream: bool) -> None:
    """The caller sees a broken connection, the journal a call that is no refusal."""
    async with running(tmp_path) as bench:
        await bench.weather(Weather(cuts=1.0))
        with pytest.raises(aiohttp.ClientError):
            await bench.ask(stream=stream)
        (call,) = await bench.ended_calls(1)
    assert (call.status, call.is_refusal) == ("cut", False)


async def test_a_caller_that_goes_away_is_in_the_journal(tmp_path: Path) -> None:
    """At once, not when the answer would have been ready: this is how a cancelled call shows."""
    async with running(tmp_path) as bench:
        with pytest.raises(TimeoutError):
            await bench.ask(take_ms=60_000, seconds=0.2)
        (call,) = await bench.ended_calls(1)
    assert call.status == "gone"


async def test_lost_answers_were_paid_for(tmp_path: Path) -> None:
    """The request arrives, the answer does not."""
    async with running(tmp_path) as bench:
        await bench.weather(Weather(network=Network.ANSWERS_LOST))
        with pytest.raises(aiohttp.ClientError):
            await bench.ask()
        (call,) = await bench.ended_calls(1)
    assert call.status == 200


async def test_calls_are_counted_as_they_begin(tmp_path: Path) -> None:
    """A fault of the provider waits for one: behind an open breaker it would befall nobody."""
    async with running(tmp_path) as bench, aiohttp.ClientSession() as session:
        for made in range(3):
            async with session.get(f"http://127.0.0.1:{bench.port}/calls") as response:
                assert await response.text() == f"{made}"
            await bench.ask()


def test_weather_says_what_is_unusual() -> None:
    assert str(Weather()) == "as usual"
    assert str(Weather(errors=0.5, network=Network.SILENT)) == "errors 0.5, network silent"


async def test_a_refused_or_silent_network_lets_nothing_through_and_opens_again(tmp_path: Path) -> None:
    """Where nothing arrived there is no call."""
    async with running(tmp_path) as bench:
        await bench.weather(Weather(network=Network.REFUSED))
        with pytest.raises(aiohttp.ClientError):
            await bench.ask()
        await bench.weather(Weather(network=Network.SILENT))
        with pytest.raises(TimeoutError):
            await bench.ask(seconds=0.2)
        assert read_calls(bench.journal) == []
        await bench.weather(Weather())
        assert (await bench.ask())[0] == 200
