"""A pipeline in one process: stages on the in-memory state, a log in place of Kafka, and crashes at will."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from inspect import isasyncgenfunction
from typing import Any, cast

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import MessageSizeTooLargeError

from connectors.kafka.producer import Outgoing, Producer
from connectors.providers.base import Answered, Failed, Provider
from connectors.settings import Settings
from connectors.state.base import Ended, Place
from connectors.state.memory_store import MemoryStateStore
from connectors.state.store import ClaimStore, StateStore
from policy.catalogue import SIMULATED_ONLY, Catalogue
from policy.retry import RetryPolicy
from policy.summary import Summary
from schemas import Attempt, LaneTask, LLMRequest, LLMResult, StatusEvent
from schemas.attempt import Problem
from schemas.codec import SingleObjectCodec, decode_single_object
from schemas.command import Command
from schemas.envelope import Header, header
from schemas.task import Origin
from schemas.vocabulary import State
from streams.commands import CommandStage
from streams.confirming import ResultConfirmer
from streams.context import Delivery, StageContext
from streams.deadlines import DeadlineSweeper
from streams.delay import DelayStage
from streams.ending import Ending
from streams.gating import CallOutcome
from streams.intake import Intake
from streams.lane import Lane
from streams.leases import LeaseKeeper
from streams.outside_ends import CalledAmong, OutsideEnds
from streams.own_claims import EndsOfOthers, OutageClaims
from streams.provider_call import ProviderCaller
from streams.records import RecordWriter
from streams.restoring import Claims, found_task
from tests.streams.scripted_provider import Script, ScriptedProvider

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
LEASE_SECONDS = 10.0
LANE_TOPIC = "llm.lane.simulated.normal"


class Crash(BaseException):
    """The process died here. No handler of the code under test may catch it, and none runs after it."""


class Crasher:
    """Counts every step that leaves the process, and dies before or after the chosen one."""

    def __init__(self, *, at: int | None = None, after: bool = False, reverse: bool = False) -> None:
        self.at = at
        self.after = after
        self.reverse = reverse
        """Whether Kafka takes what is sent together from its end: the order among topics is nobody's to choose."""
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

    def __init__(self, inner: ClaimStore, crasher: Crasher) -> None:
        self._inner = inner
        self._crasher = crasher

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method: Callable[..., Any] = getattr(self._inner, name)
        if isasyncgenfunction(method):
            return method  # it only tells, and changes nothing
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
            self._world.written_at[id(record)] = self._world.clock

        await self._crasher.step(write)

    async def send_all(self, records: Sequence[Outgoing]) -> None:
        for record in reversed(records) if self._crasher.reverse else records:
            await self.send(record)


class OpenPermit:
    """Lets a call be made, unless there is a refusal, and remembers what it was left with."""

    def __init__(self, refusal: Problem | None = None) -> None:
        self.refusal = refusal
        self.left: list[CallOutcome | None] = []

    def leave(self, outcome: CallOutcome | None) -> None:
        self.left.append(outcome)


class WorldOriginals:
    """Request records as they were delivered, and results as they were written."""

    def __init__(self, world: "World") -> None:
        self._world = world

    async def fetch(self, origin: Origin) -> Delivery | None:
        if origin.topic == "llm.results":
            return self._world.redelivery(self._world.written(origin.topic)[origin.offset])
        return self._world.originals.get(f"{origin.topic}-{origin.partition}-{origin.offset}")


class AllConfirmed:
    """A confirmer that has read every partition to its end."""

    async def caught_up(self) -> frozenset[int]:
        return frozenset({0})

    def partition_of(self, _request_id: str) -> int:
        return 0


async def nobody_called(queued: Sequence[Summary]) -> dict[str, bool]:
    """Every worker that called for these has told the shared state of it."""
    return {summary.request_id: False for summary in queued}


ANSWER = Answered(text="an answer", finish_reason="stop", model="reading-ease-1")


@dataclass
class World:
    """What survives a crash: the state, the log, the provider's memory, the clock."""

    outcome: Answered | Failed = ANSWER
    settings: Settings = field(default_factory=lambda: Settings(redis_url="redis://none", kafka_bootstrap="none"))
    catalogue: Catalogue = SIMULATED_ONLY
    log: list[Outgoing] = field(default_factory=list)
    clock: datetime = START
    largest_value: int | None = None
    refused_topic: str | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    originals: dict[str, Delivery] = field(default_factory=dict)
    provider: Provider | None = None
    claims: ClaimStore | None = None
    record_own_call: Callable[[Delivery], Awaitable[bool]] | None = None
    ends_of_others: EndsOfOthers | None = None
    called_alone: CalledAmong = nobody_called
    """For the control role: what may have been called while the shared state was away."""
    steady_since: Callable[[], float | None] = lambda: 0.0
    """For the control role: since when the shared state can be believed."""
    is_called_off: Callable[[LLMRequest], bool] = lambda _: False
    """What the lane's process has heard of cancellations."""
    permit: OpenPermit = field(default_factory=OpenPermit)
    written_at: dict[int, datetime] = field(default_factory=dict)
    leases: LeaseKeeper | None = None
    """Those of the lane that works now."""
    sweeper: tuple[Crasher | None, DeadlineSweeper] | None = None
    """The process that swept last: it remembers what it saw."""

    def __post_init__(self) -> None:
        self.script = Script(self.outcome)
        self.forget(history=False)

    @property
    def calls(self) -> Counter[str]:
        """How often a provider was called, by request."""
        return self.script.calls

    def forget(self, *, history: bool = True, restored: bool = True) -> None:
        """The shared state comes back empty; what is in Kafka is read back, and proved nothing, or is not yet."""
        born_ms = int(self.clock.timestamp() * 1000) if history else 0
        self.state = MemoryStateStore(lambda: int(self.clock.timestamp() * 1000), born_ms=born_ms, is_restored=restored)

    async def lose_state(self, left: Sequence[Outgoing]) -> None:
        """The shared state is emptied, and restored as the control role does it. `left`: tasks that are not done."""
        self.forget(restored=False)
        await self.confirm_all()
        claims: Claims = defaultdict(set)
        for event in self.events().values():
            if event.state is State.PROCESSING:
                claims[event.request_id].add(event.state_version)
        for record in left:
            task = decode_single_object(LaneTask, record.value or b"")
            of_this = claims[task.request.request_id]
            await self.state.adopt(found_task(task, of_this, size_bytes=len(record.value or b"")))
        await self.state.restored()

    def seconds(self) -> float:
        """Since the world began."""
        return (self.clock - START).total_seconds()

    def pass_time(self, seconds: float) -> None:
        self.clock += timedelta(seconds=seconds)

    def delivery(
        self,
        value: bytes,
        *,
        key: bytes | None = None,
        topic: str = "llm.requests",
        offset: int = 0,
        headers: Sequence[Header] = (),
        timestamp: datetime = START,
    ) -> Delivery:
        made = Delivery(
            topic=topic,
            partition=0,
            offset=offset,
            timestamp=timestamp,
            key=key,
            value=value,
            headers=tuple(headers),
        )
        self.originals[made.origin] = made
        return made

    def request_delivery(
        self, request: LLMRequest, *, offset: int = 0, headers: Sequence[Header] = (), timestamp: datetime = START
    ) -> Delivery:
        value, key = SingleObjectCodec().encode(request), request.request_id.encode()
        return self.delivery(value, key=key, offset=offset, headers=headers, timestamp=timestamp)

    def redelivery(
        self, record: Outgoing, *, is_surely_new: bool = False, may_have_been_called: bool = False
    ) -> Delivery:
        """A record of the log as a consumer gets it."""
        offset = next(number for number, written in enumerate(self.written(record.topic)) if written is record)
        return Delivery(
            topic=record.topic,
            partition=0,
            offset=offset,
            timestamp=self.written_at[id(record)],
            key=record.key,
            value=record.value or b"",
            headers=tuple(record.headers),
            is_surely_new=is_surely_new,
            may_have_been_called=may_have_been_called,
        )

    async def intake(self, delivery: Delivery, crasher: Crasher | None = None) -> None:
        context, ending = self._process(crasher or Crasher(), "/intake")
        await Intake(context, ending).handle(delivery)

    async def lane(self, delivery: Delivery, crasher: Crasher | None = None) -> None:
        """Works on a task until it is done."""
        lane = self.lane_worker(delivery.topic.split(".")[2], crasher)
        while await lane.handle(delivery, self.permit) is not None:
            await asyncio.sleep(0)
            self.pass_time(LEASE_SECONDS)

    def lane_worker(self, name: str, crasher: Crasher | None = None) -> Lane:
        """A process of the lane of provider `name`."""
        crasher = crasher or Crasher()
        context, ending = self._process(crasher, "/lane")
        provider = self.provider or cast("Provider", ScriptedProvider(name, self.script, crasher.step))
        entry = self.catalogue.providers[name]
        caller = ProviderCaller(provider, name=name, entry=entry, prices={}, worker=context.worker, now=context.now)
        leases = self.leases = LeaseKeeper(context.claims, lease_seconds=LEASE_SECONDS)
        return Lane(
            context,
            name=name,
            entry=entry,
            caller=caller,
            leases=leases,
            ending=ending,
            retry=self.retry,
            chance=lambda: 0.5,
            record_own_call=self.record_own_call,
            ends_of_others=self.ends_of_others,
            is_called_off=self.is_called_off,
        )

    async def lane_all(self, topic: str = LANE_TOPIC) -> None:
        """Delivers every task of the lane, in order, each until it is done."""
        for offset, record in enumerate(self.written(topic)):
            await self.lane(self.delivery(record.value or b"", key=record.key, topic=record.topic, offset=offset))

    async def delay_all(self, crasher: Crasher | None = None) -> None:
        """Lets time pass until every delayed task is due, and lets them go."""
        for record in self.delayed():
            task = decode_single_object(LaneTask, record.value or b"")
            if task.not_before is not None:
                self.clock = max(self.clock, task.not_before)
            await self.delay(record, crasher)

    async def delay(self, record: Outgoing, crasher: Crasher | None = None) -> None:
        """The delay stage takes up one record, at the present time."""
        context, ending = self._process(crasher or Crasher(), "/delay")
        stage = DelayStage(context, ending, cast("AIOKafkaConsumer", None))
        await stage.let_go(self.delivery(record.value or b"", key=record.key, topic=record.topic, offset=0))

    async def sweep(self, crasher: Crasher | None = None) -> int:
        """The control role looks for deadlines, with all results read."""
        if self.sweeper is None or self.sweeper[0] is not crasher:
            context, ends = self.control(crasher)
            confirmer = cast("ResultConfirmer", AllConfirmed())
            sweeper = DeadlineSweeper(context, ends, confirmer, clock=self.seconds, steady_since=self.steady_since)
            self.sweeper = crasher, sweeper
        return await self.sweeper[1].sweep()

    async def cancel(self, command: Command, crasher: Crasher | None = None) -> int:
        """The control role carries out a command."""
        context, ends = self.control(crasher)
        consumer = cast("AIOKafkaConsumer", None)
        stage = CommandStage(context, ends, consumer, all_confirmed=self.confirm_all, steady_since=self.steady_since)
        return await stage.carry_out(command)

    def control(self, crasher: Crasher | None = None) -> tuple[StageContext, OutsideEnds]:
        """A process of the control role."""
        context, ending = self._process(crasher or Crasher(), "/control")
        return context, OutsideEnds(context, ending, self.called_alone)

    async def confirm_all(self) -> None:
        """The control role reads all results."""
        newest: dict[str, Ended] = {}
        for offset, record in enumerate(self.written("llm.results")):
            result = decode_single_object(LLMResult, record.value or b"")
            ended = Ended(result.request_id, result.status, result.state_version, Place(0, offset))
            if result.state_version >= newest.get(result.request_id, ended).version:
                newest[result.request_id] = ended
        await self.state.confirm(list(newest.values()))

    def delayed(self) -> list[Outgoing]:
        return [record for record in self.log if record.topic.startswith("llm.retry.")]

    def written(self, topic: str) -> list[Outgoing]:
        return [record for record in self.log if record.topic == topic]

    def tasks(self) -> list[LaneTask]:
        return [decode_single_object(LaneTask, r.value or b"") for r in self.written(LANE_TOPIC)]

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
        state = cast("StateStore", CrashingState(self.state, crasher))
        context = StageContext(
            settings=self.settings,
            catalogue=self.catalogue,
            state=state,
            claims=state if self.claims is None else cast("ClaimStore", CrashingState(self.claims, crasher)),
            originals=WorldOriginals(self),
            producer=cast("Producer", LogProducer(self.log, crasher, self)),
            codec=SingleObjectCodec(),
            worker=f"worker-{id(crasher)}",
            now=lambda: self.clock,
        )
        writer = RecordWriter(context.codec, self.settings.topics, source)
        if isinstance(self.claims, OutageClaims):
            return context, Ending(context, writer, on_published=self.claims.published)
        return context, Ending(context, writer)
