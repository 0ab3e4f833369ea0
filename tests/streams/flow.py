"""Drives all stages over a world's log as Kafka would: a record is done when its stage returns, else it comes again."""

from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from connectors.kafka.producer import Outgoing
from schemas import LaneTask, LLMRequest
from schemas.attempt import Attempt
from schemas.codec import decode_single_object
from schemas.dead_letter_headers import read_dead_letter, redrive_headers
from schemas.envelope import header
from schemas.vocabulary import AttemptOutcome, State
from tests.streams.world import LEASE_SECONDS, Crash, Crasher, World

DELAYS_SECONDS = {"llm.retry.1s": 1, "llm.retry.5s": 5, "llm.retry.30s": 30, "llm.retry.2m": 120, "llm.retry.10m": 600}
MOST_RECORDS = 200

Step = Callable[[Crasher], Awaitable[object]]


class Flow:
    """Positions of the consumers of one world, and the crash that happens on the way.

    With `redelivers_last`, a record whose worker died comes again when others have gone on with what it caused. With
    `loses_state`, the shared state is emptied with the crash, and restored from what is in Kafka.
    """

    def __init__(
        self,
        world: World,
        crasher: Crasher | None = None,
        *,
        redelivers_last: bool = False,
        loses_state: bool = False,
    ) -> None:
        self.world = world
        self.crasher = crasher or Crasher()
        self.has_crashed = False
        self._positions: defaultdict[str, int] = defaultdict(int)
        self._redelivers_last = redelivers_last
        self._loses_state = loses_state
        self._requests = 0
        self._owed: list[Step] = []

    async def do(self, step: Step, *, may_come_late: bool = False) -> None:
        """One piece of work. After a crash another process does it again, once the leases have run out."""
        try:
            await step(self.crasher)
        except Crash:
            self.has_crashed = True
            self.world.pass_time(LEASE_SECONDS + 1)
            if self._loses_state:
                await self.world.lose_state(self.left())
            self.crasher = Crasher(reverse=self.crasher.reverse)
            if may_come_late and self._redelivers_last:
                self._owed.append(step)
            else:
                await step(self.crasher)

    async def send(self, request: LLMRequest) -> None:
        """A new record of the request topic, read by intake."""
        delivery = self.world.request_delivery(request, offset=self._requests, timestamp=self.world.clock)
        self._requests += 1
        await self.do(lambda crasher: self.world.intake(delivery, crasher))

    async def redrive(self, letter: Outgoing) -> None:
        """A dead letter is sent again as `sluice dlq redrive` does it."""
        described = read_dead_letter(letter.headers, size_bytes=0)
        delivery = self.world.delivery(
            letter.value or b"",
            key=letter.key,
            offset=self._requests,
            headers=redrive_headers(described, letter.headers),
            timestamp=self.world.clock,
        )
        self._requests += 1
        await self.do(lambda crasher: self.world.intake(delivery, crasher))

    async def run(self) -> None:
        """Until no record is left in a lane or a delay topic."""
        for _ in range(MOST_RECORDS):
            if not await self.take_one():
                return
        raise AssertionError("it goes on for ever")

    async def take_one(self) -> bool:
        """The next record of a lane, or else the one that is due first. False: there is none."""
        lanes = [record for record in self.left() if record.topic.startswith("llm.lane.")]
        if lanes:
            task = self.world.redelivery(lanes[0])
            await self.do(lambda crasher: self.world.lane(task, crasher), may_come_late=True)
            self._positions[lanes[0].topic] += 1
            return True
        delayed = sorted(self.left(), key=lambda record: due_of(self.world, record))
        if delayed:
            # Within a partition records are taken in order.
            first = next(record for record in self.left() if record.topic == delayed[0].topic)
            self.world.clock = max(self.world.clock, due_of(self.world, first))
            await self.do(lambda crasher: self.world.delay(first, crasher), may_come_late=True)
            self._positions[first.topic] += 1
            return True
        if self._owed:
            await self.world.confirm_all()
            await self._owed.pop()(self.crasher)
            return True
        return False

    def left(self) -> list[Outgoing]:
        """Records of lanes and delay topics that no consumer is done with."""
        found: list[Outgoing] = []
        for topic in {record.topic for record in self.world.log}:
            if topic.startswith(("llm.lane.", "llm.retry.")):
                found += self.world.written(topic)[self._positions[topic] :]
        return found


def task_of(record: Outgoing) -> LaneTask:
    return decode_single_object(LaneTask, record.value or b"")


def due_of(world: World, record: Outgoing) -> datetime:
    """When a record's wait in its delay topic is over."""
    due = world.written_at[id(record)] + timedelta(seconds=DELAYS_SECONDS[record.topic])
    not_before = task_of(record).not_before
    return due if not_before is None else min(due, not_before)


def assert_sound(world: World, *, lives: int = 1, request_id: str = "r-1") -> list[Attempt]:
    """What holds at every end, whatever happened on the way. Gives the attempts that were recorded."""
    results = [result for result in world.results().values() if result.request_id == request_id]
    assert len(results) == lives
    events = [event for event in world.events().values() if event.request_id == request_id]
    endings = [event for event in events if event.state.is_terminal]
    assert sorted(event.state_version for event in endings) == sorted(result.state_version for result in results)
    assert_ids_stand_for_one_thing(world)
    versions = [event.state_version for event in events]
    assert len(set(versions)) == len(versions)
    attempts = [attempt for attempt in world.attempts().values() if attempt.request_id == request_id]
    assert sorted(attempt.attempt for attempt in attempts) == sorted(
        {attempt.attempt for result in results for attempt in result.attempts}
    )
    known = [attempt for attempt in attempts if attempt.outcome is not AttemptOutcome.LOST]
    lost = [attempt for attempt in attempts if attempt.outcome is AttemptOutcome.LOST]
    # Every call is on record: by its outcome, or as one that may have been paid for.
    assert world.calls[request_id] <= len(attempts)
    assert world.calls[request_id] - len(known) <= len(lost)
    assert all(attempt.possibly_billed for attempt in lost)
    assert_dead_letters(world, request_id)
    return attempts


def assert_ids_stand_for_one_thing(world: World) -> None:
    """A reader drops what has an id that it knows, so the same id never says something else."""
    meant: dict[tuple[str, str], tuple[object, ...]] = {}
    for record in world.log:
        ce_id = header(record.headers, "ce_id")
        if record.topic not in ("llm.status", "llm.results", "llm.attempts") or ce_id is None:
            continue
        if record.topic == "llm.status":
            said: tuple[object, ...] = (header(record.headers, "ce_type"), header(record.headers, "ce_sequence"))
        else:
            said = (record.value,)
        assert meant.setdefault((record.topic, ce_id), said) == said, f"{record.topic}: {ce_id} means two things"


def assert_dead_letters(world: World, request_id: str = "r-1") -> None:
    """Each failure has its letter, with the bytes that came in."""
    letters = [
        (read_dead_letter(letter.headers, size_bytes=0).state_version, letter.value)
        for letter in world.written("llm.requests.dlt")
    ]
    sent = {delivery.value for delivery in world.originals.values() if delivery.topic == "llm.requests"}
    for result in world.results().values():
        if result.request_id == request_id and result.status in (State.FAILED, State.REJECTED):
            assert {value for version, value in letters if version == result.state_version} <= sent
            assert result.state_version in {version for version, _ in letters}
