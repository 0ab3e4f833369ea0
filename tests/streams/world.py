"""A pipeline in one process: stages on the in-memory state, a log in place of Kafka, and crashes at will."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from aiokafka.errors import MessageSizeTooLargeError

from connectors.kafka.producer import Outgoing, Producer
from connectors.providers.base import Answered, Call, CallEvent, Failed, Outcome, Provider, Text
from connectors.settings import Settings
from connectors.state.base import StateStore
from connectors.state.memory_store import MemoryStateStore
from policy.catalogue import SIMULATED_ONLY, Catalogue
from schemas import Attempt, LaneTask, LLMRequest, LLMResult, StatusEvent
from schemas.codec import SingleObjectCodec, decode_single_object
from schemas.envelope import header
from streams.context import Delivery, StageContext
from streams.ending import Ending
from streams.intake import Intake
from streams.lane import Lane
from streams.leases import LeaseKeeper
from streams.records import RecordWriter

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
LEASE_SECONDS = 10.0


class Crash(BaseException):
    """The process died here. No handler of the code under test may catch it, and none runs after it."""


class Crasher:
    """Counts every step that leaves the process, and dies before or after the chosen one."""

    def __init__(self, *, at: int | None = None, after: bool = False) -> None:
        self.at = at
        self.after = after
        self.steps = 0
        self.dead = False

    async def step(self, action: Callable[[], Awaitable[Any]]) -> Any:
        if self.dead:
            raise Crash
        self.steps += 1
        chosen = self.steps == self.at
        if chosen and not self.after:
            self.dead = True
            raise Crash
        result = await action()
        if chosen:
            self.dead = True
            raise Crash
        return result


class CrashingState:
    """The shared state as a process that may die sees it."""

    def __init__(self, inner: StateStore, crasher: Crasher) -> None:
        self._inner = inner
        self._crasher = crasher

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._inner, name)
        return lambda *args, **kwargs: self._crasher.step(lambda: method(*args, **kwargs))


class LogProducer:
    """Writes to a list that outlives the process."""

    def __init__(self, log: list[Outgoing], crasher: Crasher, world: "World") -> None:
        self._log = log
        self._crasher = crasher
        self._world = world

    async def send(self, record: Outgoing) -> None:
        largest = self._world.largest_value
        if record.topic == self._world.refused_topic or (largest is not None and len(record.value or b"") > largest):
            raise MessageSizeTooLargeError

        async def write() -> None:
            self._log.append(record)

        await self._crasher.step(write)

    async def send_all(self, records: Sequence[Outgoing]) -> None:
        for record in records:
            await self.send(record)


class CountingProvider:
    """Answers every call with the same outcome, and remembers who called."""

    name = "simulated"

    def __init__(self, crasher: Crasher, calls: Counter[str], outcome: Outcome) -> None:
        self._crasher = crasher
        self._calls = calls
        self._outcome = outcome

    def open(self, call: Call) -> AbstractAsyncContextManager[AsyncIterator[CallEvent]]:
        return aclosing(self._events(call))

    async def _events(self, call: Call) -> AsyncGenerator[CallEvent, None]:
        async def begin() -> None:
            self._calls[call.request_id] += 1

        await self._crasher.step(begin)
        if isinstance(self._outcome, Answered):
            yield Text(self._outcome.text)
        yield self._outcome

    async def close(self) -> None: ...


ANSWER = Answered(text="an answer", finish_reason="stop", model="reading-ease-1")


@dataclass
class World:
    """What survives a crash: the state, the log, the provider's memory, the clock."""

    outcome: Answered | Failed = ANSWER
    settings: Settings = field(default_factory=lambda: Settings(redis_url="redis://none", kafka_bootstrap="none"))
    catalogue: Catalogue = SIMULATED_ONLY
    log: list[Outgoing] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    clock: datetime = START
    largest_value: int | None = None
    refused_topic: str | None = None

    def __post_init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """The shared state comes back empty."""
        self.state = MemoryStateStore(lambda: int(self.clock.timestamp() * 1000))

    def pass_time(self, seconds: float) -> None:
        self.clock += timedelta(seconds=seconds)

    def delivery(
        self, value: bytes, *, key: bytes | None = None, topic: str = "llm.requests", offset: int = 0
    ) -> Delivery:
        return Delivery(topic=topic, partition=0, offset=offset, timestamp=START, key=key, value=value)

    def request_delivery(self, request: LLMRequest, *, offset: int = 0) -> Delivery:
        return self.delivery(SingleObjectCodec().encode(request), key=request.request_id.encode(), offset=offset)

    async def intake(self, delivery: Delivery, crasher: Crasher | None = None) -> None:
        context, ending = self._process(crasher or Crasher(), "/intake")
        await Intake(context, ending).handle(delivery)
        await ending.close()

    async def lane(self, delivery: Delivery, crasher: Crasher | None = None) -> None:
        crasher = crasher or Crasher()
        context, ending = self._process(crasher, "/lane")
        lane = Lane(
            context,
            name="simulated",
            entry=self.catalogue.providers["simulated"],
            provider=cast("Provider", CountingProvider(crasher, self.calls, self.outcome)),
            prices={},
            concurrency=1,
            leases=LeaseKeeper(context.state, lease_seconds=LEASE_SECONDS),
            ending=ending,
        )
        await lane.handle(delivery)
        await ending.close()

    async def lane_all(self) -> None:
        """Delivers every task of the lane, in order, each until it is done."""
        for offset, record in enumerate(self.written("llm.lane.simulated")):
            await self.lane(self.delivery(record.value or b"", key=record.key, topic=record.topic, offset=offset))

    def written(self, topic: str) -> list[Outgoing]:
        return [record for record in self.log if record.topic == topic]

    def tasks(self) -> list[LaneTask]:
        return [decode_single_object(LaneTask, r.value or b"") for r in self.written("llm.lane.simulated")]

    def results(self) -> dict[str | None, LLMResult]:
        """Distinct results by `ce_id`."""
        found = self.written("llm.results")
        return {header(r.headers, "ce_id"): decode_single_object(LLMResult, r.value or b"") for r in found}

    def events(self) -> dict[str | None, StatusEvent]:
        """Distinct events by `ce_id`, in order of version: events of one request may overtake each other."""
        found = [
            (header(r.headers, "ce_id"), decode_single_object(StatusEvent, r.value or b""))
            for r in self.written("llm.status")
        ]
        return dict(sorted(found, key=lambda entry: entry[1].state_version))

    def attempts(self) -> dict[str | None, Attempt]:
        """Distinct attempt records by `ce_id`."""
        found = self.written("llm.attempts")
        return {header(r.headers, "ce_id"): decode_single_object(Attempt, r.value or b"") for r in found}

    def _process(self, crasher: Crasher, source: str) -> tuple[StageContext, Ending]:
        context = StageContext(
            settings=self.settings,
            catalogue=self.catalogue,
            state=cast("StateStore", CrashingState(self.state, crasher)),
            producer=cast("Producer", LogProducer(self.log, crasher, self)),
            codec=SingleObjectCodec(),
            worker=f"worker-{id(crasher)}",
            now=lambda: self.clock,
        )
        return context, Ending(context, RecordWriter(context.codec, self.settings.topics, source))


async def until_done(handle: Callable[[Crasher | None], Awaitable[None]], crasher: Crasher, world: World) -> bool:
    """Runs once with the crash, then again as a new process would. True: the crash happened."""
    try:
        await handle(crasher)
    except Crash:
        await asyncio.sleep(0)
        world.pass_time(LEASE_SECONDS + 1)
        await handle(None)
        return True
    return False
