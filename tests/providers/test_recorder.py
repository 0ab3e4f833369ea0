"""Recording calls to files, and playing them back."""

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest
import structlog

from connectors.providers import recorder
from connectors.providers.base import Answered, Call, CallEvent, Failed, Provider, Text
from connectors.providers.errors import ProviderConfigurationError
from connectors.providers.recorder import with_recording
from connectors.providers.registry import build_provider
from policy.catalogue import ProviderEntry
from schemas.request import Message, Parameters
from schemas.vocabulary import FailureCategory, Role
from tests.providers.calls import QUESTION, a_call, answer_of, events_of, failure_of

SECRET = "a-secret-of-the-environment"  # noqa: S105 - the name of one, so to speak
AT_ONCE = {"latency_ms": 0, "first_token_ms": 0, "tokens_per_second": 1e6}


def simulated(**options: Any) -> Provider:
    return build_provider("sim", ProviderEntry(type="simulated", models=["m"], options=AT_ONCE | options))


def recording(folder: Path, provider: Provider | None = None, **environ: str) -> Provider:
    environ = {"RECORD_LLM_RESPONSES": "true", "RECORD_LLM_RESPONSES_TO": str(folder)} | environ
    return with_recording(provider or simulated(), environ)


def replay(folder: Path, **options: str) -> Provider:
    entry = ProviderEntry(type="replay", models=["m"], options={"folder": str(folder)} | options)
    return build_provider("replay", entry, environ={})


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.json"))


def ask(text: str, **parts: Any) -> Call:
    return a_call(messages=(Message(role=Role.USER, content=text),), **parts)


@pytest.mark.parametrize("value", [None, "", "false", "0", "no"])
def test_nothing_is_recorded_unasked(value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the switch the provider is the same object, and no folder is made."""
    monkeypatch.chdir(tmp_path)
    provider = simulated()
    environ = {} if value is None else {"RECORD_LLM_RESPONSES": value}
    assert with_recording(provider, environ) is provider
    assert list(tmp_path.iterdir()) == []


def test_recording_is_told_at_the_start(tmp_path: Path) -> None:
    """The log warns, and says where prompts go."""
    with structlog.testing.capture_logs() as logs:
        recording(tmp_path)
    assert [(line["log_level"], line["event"]) for line in logs] == [("warning", "recording_llm_responses")]
    assert logs[0]["folder"] == str(tmp_path / "sim")


async def test_a_call_is_one_readable_file(tmp_path: Path) -> None:
    """It holds what was asked and what came, piece by piece with its time; nobody else may read it."""
    events = await events_of(recording(tmp_path), a_call(stream=True))
    (path,) = files(tmp_path)
    written = json.loads(path.read_text())
    assert written["call"]["messages"] == [{"role": "user", "content": QUESTION}]
    assert [Text(piece["text"]) for piece in written["pieces"]] == events[:-1]
    assert isinstance(events[-1], Answered)
    assert written["answered"]["text"] == events[-1].text
    assert len(path.read_text().splitlines()) > 30
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_the_recorded_provider_is_like_the_bare_one(tmp_path: Path) -> None:
    """Its events are handed on unchanged, and closing it closes the provider."""
    recorded, bare = recording(tmp_path), simulated()
    assert recorded.name == bare.name
    for call in (a_call(stream=True), a_call(), a_call(metadata={"simulated.fail": "rate_limited"})):
        assert await events_of(recorded, call) == await events_of(bare, call)
    await recorded.close()


async def test_keys_are_taken_out(tmp_path: Path) -> None:
    """Those of the environment, whatever they look like, and what looks like a key, wherever it came from."""
    text = f"{SECRET} and sk-abcdefghijklmnopqrstuvwxyz123456 and Bearer abcdefghijklmnop.qrs"
    await answer_of(recording(tmp_path, MY_API_KEY=SECRET, MY_NAME="moonlight"), ask(text + " and moonlight"))
    content = files(tmp_path)[0].read_text()
    assert SECRET not in content
    assert "abcdefghijkl" not in content
    assert "[MY_API_KEY removed] and [key removed] and [key removed] and moonlight" in content


async def test_a_call_that_was_left_is_recorded_without_an_end(tmp_path: Path) -> None:
    """What came until then is there; a replay does not take it for an answer."""
    async with recording(tmp_path).open(a_call(stream=True)) as events:
        first = await anext(events)
    written = json.loads(files(tmp_path)[0].read_text())
    assert [Text(piece["text"]) for piece in written["pieces"]] == [first]
    assert (written["answered"], written["failed"]) == (None, None)
    assert (await failure_of(replay(tmp_path), a_call())).problem.category is FailureCategory.NOT_FOUND


async def test_a_cancelled_call_is_recorded_and_stays_cancelled(tmp_path: Path) -> None:
    """Recording does not get in the way of a cancel."""
    task = asyncio.create_task(events_of(recording(tmp_path), a_call(metadata={"simulated.hang": "true"})))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert len(files(tmp_path)) == 1


async def test_recording_ends_at_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of earlier runs count; calls go on unrecorded, and the log says so."""
    monkeypatch.setattr(recorder, "MAX_FILES", 3)
    await answer_of(recording(tmp_path), a_call())
    second = recording(tmp_path)
    with structlog.testing.capture_logs() as logs:
        for number in range(4):
            await answer_of(second, ask(f"Question {number}?"))
    assert len(files(tmp_path)) == 3
    assert [line["event"] for line in logs] == ["recording_ended"]


async def test_a_call_too_large_is_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is answered all the same; the log names the request and quotes nothing."""
    monkeypatch.setattr(recorder, "MAX_CHARACTERS", 100)
    with structlog.testing.capture_logs() as logs:
        provider = recording(tmp_path)
        await answer_of(provider, a_call())
    assert files(tmp_path) == []
    assert logs[-1]["event"] == "call_not_recorded"
    assert QUESTION not in str(logs)


async def test_a_folder_that_went_away_harms_no_call(tmp_path: Path) -> None:
    """What cannot be written is told in the log."""
    provider = recording(tmp_path)
    (tmp_path / "sim").rmdir()
    with structlog.testing.capture_logs() as logs:
        await answer_of(provider, a_call())
    assert logs[-1]["event"] == "call_not_recorded"


def test_a_folder_that_cannot_be_is_told_at_once(tmp_path: Path) -> None:
    """Who asks for recordings must not miss them later."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ProviderConfigurationError, match="RECORD_LLM_RESPONSES"):
        recording(tmp_path / "file")


async def recorded_events(folder: Path, *calls: Call) -> list[list[CallEvent]]:
    provider = recording(folder)
    return [await events_of(provider, call) for call in calls]


async def test_a_replay_gives_what_was_recorded(tmp_path: Path) -> None:
    """To the same question, whoever asks it: pieces, outcome, usage."""
    calls = [ask("One?", stream=True), ask("Two?", stream=True)]
    first, second = await recorded_events(tmp_path, *calls)
    provider = replay(tmp_path)
    assert await events_of(provider, ask("Two?", stream=True, request_id="another")) == second
    assert await events_of(provider, ask("One?", stream=True)) == first


async def test_a_stream_can_be_replayed_whole_and_the_reverse(tmp_path: Path) -> None:
    """An answer that came whole is one piece of a stream."""
    streamed, whole = await recorded_events(tmp_path, ask("Streamed?", stream=True), ask("Whole?"))
    provider = replay(tmp_path)
    assert await events_of(provider, ask("Streamed?")) == streamed[-1:]
    assert isinstance(whole[-1], Answered)
    assert await events_of(provider, ask("Whole?", stream=True)) == [Text(whole[-1].text), whole[-1]]


async def test_failures_are_replayed_in_their_order(tmp_path: Path) -> None:
    """A question that failed at first and was answered then does so again; its last end is the one that stays."""
    fails_once = {"simulated.fail": "overloaded", "simulated.fail_attempts": "1"}
    calls = [ask("Again?", attempt=attempt, metadata=fails_once) for attempt in (1, 2)]
    (failed,), (answered,) = await recorded_events(tmp_path, *calls)
    assert isinstance(failed, Failed)
    provider = replay(tmp_path)
    assert [(await events_of(provider, ask("Again?")))[0] for _ in range(3)] == [failed, answered, answered]


@pytest.mark.parametrize(
    "other", [{"model": "other"}, {"parameters": Parameters(seed=1)}, {"response_schema": {"type": "object"}}]
)
async def test_another_question_has_no_answer(tmp_path: Path, other: dict[str, Any]) -> None:
    """Never one that was given to somebody else: the call fails, and says how to record it."""
    await recorded_events(tmp_path, a_call())
    failed = await failure_of(replay(tmp_path), a_call(**other))
    assert (failed.problem.category, failed.problem.retryable) == (FailureCategory.NOT_FOUND, False)
    assert "RECORD_LLM_RESPONSES" in (failed.problem.remedy or "")


async def test_by_order_whatever_is_asked(tmp_path: Path) -> None:
    """Recordings come one after the other, and then there are none."""
    events = await recorded_events(tmp_path, ask("One?"), ask("Two?"))
    provider = replay(tmp_path, match="order")
    assert [await events_of(provider, ask("Anything?")) for _ in range(2)] == events
    assert (await failure_of(provider, ask("One?"))).problem.category is FailureCategory.NOT_FOUND


async def test_the_pace_of_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it is wanted, the waits are those that were recorded."""
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    (events,) = await recorded_events(tmp_path, a_call(stream=True))
    recorded = json.loads(files(tmp_path)[0].read_text())
    monkeypatch.setattr(asyncio, "sleep", wait)
    assert await events_of(replay(tmp_path, pace="recorded"), a_call(stream=True)) == events
    assert sum(waits) == pytest.approx(recorded["ended_after_ms"] / 1000)
    assert len(waits) == len(events)


@pytest.mark.parametrize(
    ("content", "said"), [(None, "no recordings"), ("{}", "is no recording"), ("x", "no recording")]
)
def test_a_folder_without_recordings(tmp_path: Path, content: str | None, said: str) -> None:
    """The provider is not built, and the message names the folder or the file."""
    if content is not None:
        (tmp_path / "one.json").write_text(content)
    with pytest.raises(ProviderConfigurationError, match=said) as caught:
        replay(tmp_path)
    assert str(tmp_path) in str(caught.value)
