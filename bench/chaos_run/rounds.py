"""A run: rounds of load with a fault in each, and then the wait until every request has ended."""

import asyncio
import json
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import uuid4

from aiokafka.errors import KafkaError

from bench.chaos_run.checker import TERMINAL, Verdict, check
from bench.chaos_run.clocks import find_library
from bench.chaos_run.evidence import Decoder, gather_logs, unread
from bench.chaos_run.faults import CLEAR, FAULTS, needs_clocks
from bench.chaos_run.load import Planned, plan
from bench.chaos_run.logs import Logs, Sent
from bench.chaos_run.system import ChaosSystem, running_system
from bench.measuring import at_rate
from connectors.kafka.client import client_options
from connectors.kafka.producer import Outgoing, Producer
from connectors.kafka.reader import TopicReader
from schemas import Command
from schemas.codec import SingleObjectCodec
from schemas.envelope import cloud_event
from schemas.vocabulary import DuplicatePolicy

REST_SECONDS = 60.0
"""For groups to commit what they have done, once every request has ended."""
_codec = SingleObjectCodec()
_POLL_SECONDS = 0.2
_TELL_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """One run. `faults`: one for each round, in order. `patience_seconds`: how long nothing may end before we give up.

    `backlog`: how many requests may be outstanding when a round ends; the next one waits for that.
    """

    requests: int
    faults: Sequence[str]
    seed: int
    rate: float = 80.0
    workers: int = 2
    backlog: int = 200
    patience_seconds: float = 120.0


@dataclass(frozen=True, kw_only=True)
class Round:
    """How one round went. `did`: what was done to the system, each with its time (UTC, as in the logs of the roles)."""

    number: int
    fault: str
    did: Sequence[str]
    seconds: float
    sent: int
    outstanding: int


@dataclass(kw_only=True)
class Outcome:
    """What a run brought. `accidents`: processes that died or would not stop, and nobody had done it."""

    options: Options
    verdict: Verdict
    logs: Logs
    seconds: float
    rounds: list[Round] = field(default_factory=list)
    accidents: list[str] = field(default_factory=list)

    @property
    def is_passed(self) -> bool:
        return self.verdict.is_clean


class Diary:
    """What is done to the system, noted and told as it happens."""

    def __init__(self, on_progress: Callable[[str], None]) -> None:
        self._on_progress = on_progress
        self._entries: list[str] = []

    def note(self, what: str) -> None:
        entry = f"{datetime.now(UTC):%H:%M:%S.%f}"[:-3] + f" {what}"
        self._entries.append(entry)
        self._on_progress(f"    {entry}")

    def take(self) -> list[str]:
        """What was noted since this was asked last."""
        entries, self._entries = self._entries, []
        return entries


class Load:
    """Sends, and follows what has ended."""

    def __init__(self, system: ChaosSystem, producer: Producer) -> None:
        self._system = system
        self._producer = producer
        self._topics = system.settings.topics
        self._ended: dict[str, dict[str, float]] = {"status": {}, "results": {}}
        """When the end of each was seen first, in either topic."""
        self._later: set[asyncio.Task[None]] = set()
        self.sent: dict[str, Sent] = {}

    @property
    def outstanding(self) -> int:
        return len(self.sent.keys() - (self._ended["status"].keys() & self._ended["results"].keys()))

    @property
    def ended(self) -> int:
        return len(self._ended["status"]) + len(self._ended["results"])

    async def send(self, planned: Planned) -> None:
        """Returns when Kafka has it. Its copy and its cancellation follow when they are due."""
        request = planned.request(datetime.now(UTC))
        name, value = request.request_id, _codec.encode(request)
        cancel_after, copy_after = planned.cancel_after_seconds, planned.copy_after_seconds
        await self._write(self._topics.requests, name, value, "sluice.LLMRequest")
        self.sent[name] = Sent(
            request_id=name,
            round=planned.round + 1,
            provider=request.provider,
            fail_when_lost=request.duplicate_policy is DuplicatePolicy.FAIL,
            deadline=None if request.deadline_at is None else request.deadline_at.timestamp(),
            cancel_asked=None if cancel_after is None else time.time() + cancel_after,
            copies=1 if copy_after is None else 2,
        )
        if copy_after is not None:
            self._do_later(copy_after, lambda: self._write(self._topics.requests, name, value, "sluice.LLMRequest"))
        if cancel_after is not None:
            self._do_later(cancel_after, lambda: self._cancel(name))

    def accounts(self) -> list[Sent]:
        """All that was sent, with when its result was seen."""
        seen = self._ended["results"]
        return [replace(sent, answered=seen.get(sent.request_id)) for sent in self.sent.values()]

    async def all_sent(self) -> None:
        """Waits until every copy and every cancellation has been sent."""
        while self._later:
            await asyncio.gather(*self._later)

    def _do_later(self, after_seconds: float, action: Callable[[], Awaitable[None]]) -> None:
        async def wait_and_do() -> None:
            await asyncio.sleep(after_seconds)
            await action()

        task = asyncio.create_task(wait_and_do())
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _cancel(self, request_id: str) -> None:
        command = Command(command_id=str(uuid4()), request_id=request_id, issued_at=datetime.now(UTC))
        await self._write(self._topics.commands, request_id, _codec.encode(command), "sluice.Command")

    async def _write(self, topic: str, key: str, value: bytes, kind: str) -> None:
        headers = cloud_event(type=kind, source="/chaos", key=key)
        await self._producer.send(Outgoing(topic=topic, key=key.encode(), value=value, headers=headers))

    async def follow(self) -> None:
        """Notes what ends, for the pace of the run; the checker reads for itself. Without end."""
        while True:
            # With Kafka away for long it may give up. Reading all of it again changes nothing.
            with suppress(KafkaError):
                await self._follow()

    async def _follow(self) -> None:
        words = {self._topics.status: "status", self._topics.results: "results"}
        events = Decoder("StatusEvent")
        async with TopicReader(client_options(self._system.settings), list(words), start="beginning") as reader:
            async for record in reader:
                word = words[record.topic]
                if word == "results" or events.decode(record.value)["state"] in TERMINAL:
                    self._ended[word].setdefault(record.key.decode(), time.time())


async def run(options: Options, *, on_progress: Callable[[str], None], folder: Path | None = None) -> Outcome:
    """Starts everything, runs the rounds, stops everything, and judges. `folder` keeps all that was read, and logs."""
    began = time.monotonic()
    diary = Diary(on_progress)
    faketime = find_library() if any(needs_clocks(fault) for fault in options.faults) else None
    with tempfile.TemporaryDirectory(prefix="sluice-chaos-") as temporary:
        home = folder or Path(temporary)
        async with running_system(
            home, workers=options.workers, seed=options.seed, tell=diary.note, faketime=faketime
        ) as system:
            on_progress(f"up after {time.monotonic() - began:.0f} s: {len(system.members)} processes")
            async with _loaded(system) as load:
                rounds = await _all_rounds(system, load, options, diary, on_progress)
                for provider in system.providers:
                    await system.weather(provider, CLEAR)
                await load.all_sent()
                await _until_all_ended(load, options, on_progress)
                await _until_committed(system)
            await system.terminate(list(system.members))
            settings = system.settings
            logs = await gather_logs(
                settings.kafka_bootstrap,
                settings.topic_prefix,
                settings.redis_url.get_secret_value(),
                load.accounts(),
                [provider.journal for provider in system.providers.values()],
            )
    if folder is not None:
        (folder / "logs.json").write_text(json.dumps(asdict(logs)))
    return Outcome(
        options=options,
        verdict=check(logs),
        logs=logs,
        seconds=time.monotonic() - began,
        rounds=rounds,
        accidents=system.accidents,
    )


@asynccontextmanager
async def _loaded(system: ChaosSystem) -> AsyncIterator[Load]:
    async with Producer(client_options(system.settings)) as producer:
        load = Load(system, producer)
        following = asyncio.create_task(load.follow())
        try:
            yield load
        finally:
            following.cancel()
            await asyncio.wait([following])


async def _all_rounds(
    system: ChaosSystem, load: Load, options: Options, diary: Diary, on_progress: Callable[[str], None]
) -> list[Round]:
    dice, started = random.Random(f"rounds-{options.seed}"), time.monotonic()
    planned = plan(seed=options.seed, requests=options.requests, rounds=len(options.faults))
    done: list[Round] = []
    for number, fault in enumerate(options.faults):
        began = time.monotonic()
        share = [request for request in planned if request.round == number]
        on_progress(f"round {number + 1}/{len(options.faults)}: {fault} ({began - started:.0f} s so far)")
        await _send_and_disturb(
            load,
            share,
            rate=options.rate,
            begin_at=max(1, int(len(share) * dice.uniform(0.2, 0.6))),
            disturb=partial(FAULTS[fault], system, dice),
        )
        await system.whole()
        await _progressing(load, options, on_progress, until=lambda: load.outstanding <= options.backlog)
        done.append(
            Round(
                number=number + 1,
                fault=fault,
                did=diary.take(),
                seconds=time.monotonic() - began,
                sent=len(load.sent),
                outstanding=load.outstanding,
            )
        )
        on_progress(f"    {done[-1].seconds:.1f} s, {len(load.sent)} sent, {load.outstanding} outstanding")
    return done


async def _send_and_disturb(
    load: Load, share: Sequence[Planned], *, rate: float, begin_at: int, disturb: Callable[[], Awaitable[None]]
) -> None:
    """The disturbance begins once `begin_at` requests of the share have been sent, and is over on return."""
    begin = asyncio.Event()
    done = 0

    async def send(number: int) -> None:
        nonlocal done
        await load.send(share[number])
        done += 1
        if done >= begin_at:
            begin.set()

    sending = asyncio.create_task(at_rate(rate, len(share), send))
    beginning = asyncio.create_task(begin.wait())
    try:
        # An error of the sender's would else be waited for without end.
        await asyncio.wait([beginning, sending], return_when=asyncio.FIRST_COMPLETED)
        await disturb()
        await sending
    finally:
        sending.cancel()
        beginning.cancel()


async def _until_all_ended(load: Load, options: Options, on_progress: Callable[[str], None]) -> None:
    on_progress(f"waiting for the last {load.outstanding} requests")
    if not await _progressing(load, options, on_progress, until=lambda: load.outstanding == 0):
        on_progress(f"gave up after {options.patience_seconds:g} s in which nothing ended: {load.outstanding} are left")


async def _progressing(
    load: Load, options: Options, on_progress: Callable[[str], None], *, until: Callable[[], bool]
) -> bool:
    """Waits for `until` for as long as requests end. False: nothing had ended for `patience_seconds`."""
    last, since = load.ended, time.monotonic()
    tell_at = since + _TELL_SECONDS
    while not until():
        await asyncio.sleep(_POLL_SECONDS)
        now = time.monotonic()
        if now >= tell_at:
            on_progress(f"    {load.outstanding} outstanding")
            tell_at = now + _TELL_SECONDS
        if load.ended != last:
            last, since = load.ended, now
        elif now - since > options.patience_seconds:
            return False
    return True


async def _until_committed(system: ChaosSystem) -> None:
    """Or until `REST_SECONDS` have passed: the checker says what was left."""
    settings = system.settings
    deadline = time.monotonic() + REST_SECONDS
    while any((await unread(settings.kafka_bootstrap, settings.topic_prefix)).values()):
        if time.monotonic() > deadline:
            return
        await asyncio.sleep(_POLL_SECONDS)
