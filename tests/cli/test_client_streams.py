"""Answers in pieces through the Python client: many streams on one reader, each in its order and at its own pace."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from connectors.kafka.client import client_options
from connectors.kafka.reader import TopicReader
from connectors.settings import Settings
from schemas import LLMResult
from schemas.base import Record
from schemas.delta import Delta
from schemas.topics import Topics
from sluice import answer_streams
from sluice.answer_streams import AnswerStreams, Inbox, StreamOverrunError
from sluice.client import Client, ClientClosedError
from tests.cli.client_support import CODEC, answer, answering, request, result, submitted, write_delta

STREAMS = 50
PIECES = 20
READER_TASK = "client-streams"


def piece(seq: int, *, attempt: int = 1, text: str | None = None) -> Delta:
    text = f"<{attempt}.{seq}>" if text is None else text
    supersedes = attempt - 1 if attempt > 1 and seq == 0 else None
    return Delta(request_id="a", attempt=attempt, seq=seq, text=text, supersedes_attempt=supersedes)


def readers_at_work() -> int:
    return [task.get_name() for task in asyncio.all_tasks()].count(READER_TASK)


@contextmanager
def bounded(monkeypatch: pytest.MonkeyPatch, *, pieces: int, characters: int) -> Iterator[None]:
    with monkeypatch.context() as changed:
        changed.setattr(answer_streams, "MAX_WAITING_PIECES", pieces)
        changed.setattr(answer_streams, "MAX_WAITING_CHARACTERS", characters)
        yield


steps = st.lists(st.one_of(st.just("take"), st.tuples(st.integers(1, 3), st.integers(0, 9))), max_size=80)


@given(steps=steps, bound=st.integers(1, 5))
def test_whatever_comes_and_however_slowly_it_is_taken_pieces_grow_and_no_text_is_lost(
    steps: list[Any], bound: int
) -> None:
    """Repeats and superseded pieces in any order, a consumer of any pace: the last attempt's text is whole."""

    async def play(monkeypatch: pytest.MonkeyPatch) -> None:
        with bounded(monkeypatch, pieces=bound, characters=10_000):
            inbox, taken, accepted = Inbox(), list[Delta](), list[tuple[int, int]]()
            for step in steps:
                if step != "take":
                    attempt, seq = step
                    inbox.put(piece(seq, attempt=attempt))
                    if (attempt, seq) > (accepted[-1] if accepted else (0, -1)):
                        accepted.append((attempt, seq))
                    assert len(inbox._pieces) <= bound
                elif inbox._pieces:
                    taken.append(cast("Delta", await inbox.next()))
            inbox.end(result("a"))
            while isinstance(part := await inbox.next(), Delta):
                taken.append(part)
        places = [(one.attempt, one.seq) for one in taken]
        assert places == sorted(set(places))
        if accepted:
            last = accepted[-1][0]
            whole = "".join(f"<{attempt}.{seq}>" for attempt, seq in accepted if attempt == last)
            assert "".join(one.text for one in taken if one.attempt == last) == whole

    with pytest.MonkeyPatch.context() as monkeypatch:
        asyncio.run(play(monkeypatch))


async def test_a_joined_piece_still_says_which_attempt_it_supersedes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins with the attempt's first piece; the void text before it is left out."""
    with bounded(monkeypatch, pieces=3, characters=100):
        inbox = Inbox()
        for attempt in (1, 2):
            for seq in range(2):
                inbox.put(piece(seq, attempt=attempt))
    (only,) = inbox._pieces
    assert (only.attempt, only.seq, only.text, only.supersedes_attempt) == (2, 1, "<2.0><2.1>", 1)


async def test_text_without_end_that_nobody_takes_ends_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an error of its own; what comes after it is not kept."""
    with bounded(monkeypatch, pieces=1_000, characters=100):
        inbox = Inbox()
        for seq in range(30):
            inbox.put(piece(seq, text="ten chars."))
        inbox.end(result("a"))
        with pytest.raises(StreamOverrunError, match="a: 110 characters"):
            await inbox.next()
        assert inbox._characters <= 110


class PlayedReader:
    """Gives batches of records as a test plays them, and holds the ends that it says."""

    def __init__(self, batches: list[list[ConsumerRecord]], ends: dict[TopicPartition, int]) -> None:
        self._batches = batches
        self._ends = ends
        self._read = dict.fromkeys(ends, 0)

    async def some(self, *, timeout_ms: int) -> list[ConsumerRecord]:
        if not self._batches:
            await asyncio.Event().wait()
        batch = self._batches.pop(0)
        for one in batch:
            self._read[TopicPartition(one.topic, one.partition)] = one.offset + 1
        return batch

    async def ends(self) -> dict[TopicPartition, int]:
        return self._ends

    async def has_reached(self, ends: dict[TopicPartition, int]) -> bool:
        return all(self._read[part] >= end for part, end in ends.items())


def stored(topic: str, offset: int, value: Record) -> ConsumerRecord:
    return ConsumerRecord(topic, 0, offset, 0, 0, b"a", CODEC.encode(value), None, 0, 0, [])


async def test_pieces_from_before_the_result_are_given_before_it_although_they_are_read_after_it() -> None:
    """The two topics are read side by side: a result waits until the deltas are read to where they ended with it."""
    topics = Topics()
    batches = [
        [stored(topics.deltas, 0, piece(0)), stored(topics.results, 0, result("a"))],
        [stored(topics.deltas, 1, piece(1))],
        [stored(topics.deltas, 2, piece(2))],
    ]
    ends = {TopicPartition(topics.deltas, 0): 3, TopicPartition(topics.results, 0): 7}
    streams = AnswerStreams({}, topics, CODEC)
    with streams.inbox("a") as inbox:
        reading = asyncio.create_task(streams._read(cast("TopicReader", PlayedReader(batches, ends))))
        parts = [await asyncio.wait_for(inbox.next(), 10) for _ in range(4)]
        reading.cancel()
    assert [part.seq if isinstance(part, Delta) else part.request_id for part in parts] == [0, 1, 2, "a"]
    assert streams._inboxes == {}


@pytest.mark.integration
async def test_a_stream_gives_each_piece_once_and_the_result_last(stack_settings: Settings) -> None:
    """Pieces of others, repeats and those of a superseded attempt are left out; pieces behind the result are not."""
    settings = stack_settings
    async with (
        answering(settings) as producer,
        TopicReader(client_options(settings), [settings.topics.requests]) as requests,
        Client(settings) as client,
    ):
        reading = asyncio.create_task(everything(client, "mine"))
        assert await submitted(requests, 1) == [b"mine"]
        told = [(1, 0, "a"), (1, 0, "a"), (1, 1, "b"), (2, 0, "A"), (1, 2, "c"), (2, 1, "B"), (2, 1, "B")]
        for attempt, seq, text in told:
            await write_delta(producer, settings, Delta(request_id="other", attempt=9, seq=seq, text="no"))
            await write_delta(producer, settings, Delta(request_id="mine", attempt=attempt, seq=seq, text=text))
        await answer(producer, settings, "mine")
        pieces, last = await asyncio.wait_for(reading, 20)
    assert [(one.attempt, one.seq, one.text) for one in pieces] == [(1, 0, "a"), (1, 1, "b"), (2, 0, "A"), (2, 1, "B")]
    assert last.request_id == "mine"


async def everything(client: Client, request_id: str) -> tuple[list[Delta], LLMResult]:
    """A stream to its end."""
    pieces: list[Delta] = []
    last: LLMResult | None = None
    async for part in client.stream(request(request_id), timeout_seconds=60):
        assert last is None, "nothing comes after the result"
        if isinstance(part, LLMResult):
            last = part
        else:
            pieces.append(part)
    assert last is not None
    return pieces, last


@pytest.mark.integration
async def test_fifty_streams_share_one_reader_and_a_slow_consumer_holds_up_none(
    stack_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gets its own pieces in order and its result last; the slow one's are joined, and its text is whole."""
    opened: list[list[str]] = []
    enter = TopicReader.__aenter__

    async def count(self: TopicReader) -> TopicReader:
        opened.append(self._topics)
        return await enter(self)

    monkeypatch.setattr(answer_streams, "MAX_WAITING_PIECES", PIECES // 4)
    settings = stack_settings
    names = [f"essay-{number}" for number in range(STREAMS)]
    others_are_done = asyncio.Event()

    async def slowly(client: Client) -> tuple[list[Delta], LLMResult]:
        pieces: list[Delta] = []
        async for part in client.stream(request("slow"), timeout_seconds=60):
            if isinstance(part, LLMResult):
                return pieces, part
            pieces.append(part)
            await others_are_done.wait()
        raise AssertionError("the stream ended without its result")

    async with (
        answering(settings) as producer,
        TopicReader(client_options(settings), [settings.topics.requests]) as requests,
        Client(settings) as client,
    ):
        monkeypatch.setattr(TopicReader, "__aenter__", count)
        slow = asyncio.create_task(slowly(client))
        quick = [asyncio.create_task(everything(client, name)) for name in names]
        await submitted(requests, STREAMS + 1)
        for seq in range(PIECES):
            parts = [Delta(request_id=name, attempt=1, seq=seq, text=f"{name} {seq} ") for name in [*names, "slow"]]
            await asyncio.gather(*(write_delta(producer, settings, part) for part in parts))
        await answer(producer, settings, *names, "slow")
        ended = await asyncio.wait_for(asyncio.gather(*quick), 60)
        assert not slow.done()
        assert opened == [[settings.topics.deltas, settings.topics.results]]
        assert readers_at_work() == 1
        others_are_done.set()
        late, last = await asyncio.wait_for(slow, 20)
    for name, (pieces, end) in zip(names, ended, strict=True):
        assert "".join(one.text for one in pieces) == "".join(f"{name} {seq} " for seq in range(PIECES))
        assert [one.seq for one in pieces] == sorted({one.seq for one in pieces})
        assert end.request_id == name
    assert "".join(one.text for one in late) == "".join(f"slow {seq} " for seq in range(PIECES))
    assert len(late) < PIECES
    assert last.request_id == "slow"
    assert readers_at_work() == 0


@pytest.mark.integration
async def test_a_stream_that_takes_too_long_says_so_and_leaves_nothing_behind(stack_settings: Settings) -> None:
    """As a call does."""
    async with answering(stack_settings), Client(stack_settings) as client:
        with pytest.raises(TimeoutError):
            _ = [part async for part in client.stream(request("late"), timeout_seconds=0.3)]
        assert client._streams is not None
        assert client._streams._inboxes == {}


@pytest.mark.integration
async def test_closing_the_client_ends_its_open_streams(stack_settings: Settings) -> None:
    """They raise an error of their own; the reader is gone, and no new stream begins."""
    settings = stack_settings
    async with answering(settings), TopicReader(client_options(settings), [settings.topics.requests]) as requests:
        async with Client(settings) as client:
            streams = [asyncio.create_task(everything(client, name)) for name in ("a", "b")]
            await submitted(requests, 2)
        for ended in await asyncio.gather(*streams, return_exceptions=True):
            assert isinstance(ended, ClientClosedError)
        assert readers_at_work() == 0
        with pytest.raises(RuntimeError, match="async with"):
            await anext(client.stream(request("c")))


@pytest.mark.integration
async def test_a_reader_that_fails_is_told_to_all_streams_and_replaced(
    stack_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each raises what happened, and the next stream reads anew."""
    settings = stack_settings
    async with (
        answering(settings) as producer,
        TopicReader(client_options(settings), [settings.topics.requests]) as requests,
        Client(settings) as client,
    ):
        streams = [asyncio.create_task(everything(client, name)) for name in ("a", "b")]
        await submitted(requests, 2)

        async def fail(_self: TopicReader, *, timeout_ms: int) -> list[ConsumerRecord]:
            raise ConnectionError(f"no more after {timeout_ms}")

        with monkeypatch.context() as broken:
            broken.setattr(TopicReader, "some", fail)
            for ended in await asyncio.gather(*streams, return_exceptions=True):
                assert isinstance(ended, ConnectionError)
        again = asyncio.create_task(everything(client, "next"))
        await submitted(requests, 1)
        await answer(producer, settings, "next")
        assert (await again)[1].request_id == "next"
