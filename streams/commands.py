"""Cancellations: `CommandStage` ends what nobody holds, `CancelListener` ends the calls of its own process."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord

from connectors import metrics
from connectors.kafka.client import client_options
from connectors.kafka.group_consumer import commit_positions
from connectors.kafka.reader import TopicReader
from connectors.state.base import Cancellation, Known
from policy.cancelling import Cancellations, as_written, concerns
from policy.failures import problem
from policy.summary import Identity, Summary, asked_at, identity, load_summary
from schemas.attempt import Problem
from schemas.base import epoch_ms
from schemas.codec import Codec, CodecError, decode_json, is_json
from schemas.command import Command
from schemas.request import LLMRequest
from schemas.vocabulary import CommandAction, FailureCategory, State
from streams.context import StageContext
from streams.deliveries import moment_of
from streams.leases import LeaseKeeper
from streams.outside_ends import OutsideEnds
from streams.patience import patiently

log = structlog.get_logger(__name__)

POLL_MS = 500
STEADY_POLL_SECONDS = 0.1
MAX_AT_ONCE = 1_000
AFTER_ERROR_SECONDS = 1.0
HEARD_OF = timedelta(hours=1)
MAX_HEARD = 10_000
"""Commands that a process knows of: of the last hour when it starts, the newest."""


class CommandStage:
    """Carries out commands, each at least once. Doing so twice has no further effect."""

    def __init__(
        self,
        context: StageContext,
        ends: OutsideEnds,
        consumer: AIOKafkaConsumer,
        *,
        all_confirmed: Callable[[], Awaitable[None]],
        steady_since: Callable[[], float | None],
    ) -> None:
        """`all_confirmed` returns once the shared state knows of every result that stands in Kafka at that time.

        `steady_since` tells since when it can be believed, if it can be (`Steadiness.since`).
        """
        self._context = context
        self._ends = ends
        self._consumer = consumer
        self._all_confirmed = all_confirmed
        self._steady_since = steady_since

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop`."""
        while not stop.is_set():
            batches = await self._consumer.getmany(timeout_ms=POLL_MS)
            for partition, records in batches.items():
                for record in records:
                    command = await read_command(self._context.codec, record)
                    if command is not None:
                        await self.carry_out(command)
                await commit_positions(self._consumer, {partition: records[-1].offset + 1})

    async def carry_out(self, command: Command) -> int:
        """Cancels what the command is about. Returns how many requests were ended here, calls not among them."""
        state = self._context.state
        # First: what is admitted from now on has seen it, and what was admitted before is found below.
        await patiently("forbid", partial(state.forbid, cancellation_of(command)))
        ids: list[str] = []
        if command.request_id is not None:
            ids = await self._mark(command, [command.request_id])
        else:
            async for request_ids in state.counted():
                ids += await self._mark(command, request_ids)
        ended = await self._end(command, ids) if ids else 0
        metrics.commands_carried_out.inc()
        log.info("cancelled", command_id=command.command_id, issued_by=command.issued_by, ended=ended)
        return ended

    async def _mark(self, command: Command, request_ids: list[str]) -> list[str]:
        """Those that it is about. From now on whoever holds one, or claims it, ends it."""
        state = self._context.state
        found = await patiently("look", lambda: state.look(request_ids))
        ids = [known.request_id for known in found if _is_wanted(command, known)]
        if ids:
            await patiently("cancel", lambda: state.cancel(ids))
        return ids

    async def _end(self, command: Command, ids: list[str]) -> int:
        """Ends those that nobody holds, a part at a time, and leaves to sweeps what it cannot. Returns how many."""
        while (since := self._steady_since()) is None:  # noqa: ASYNC110 - it is told by a clock
            await asyncio.sleep(STEADY_POLL_SECONDS)
        # A worker may have ended some while Redis was away: they are not to be ended a second time.
        await self._all_confirmed()
        ended, why = 0, _called_off(command)
        for start in range(0, len(ids), MAX_AT_ONCE):
            # Not as they were marked: one that was in a call may wait for its next try by now.
            part = ids[start : start + MAX_AT_ONCE]
            found = await patiently("look", partial(self._context.state.look, part))
            ended += await self._ends.end_all(
                [known for known in found if _is_wanted(command, known)],
                State.CANCELLED,
                lambda _: why,
                may_end=lambda: self._steady_since() == since,
            )
        return ended


class CancelListener:
    """Ends the running calls of this process that a command is about, at once. The leases tell of it later anyhow."""

    def __init__(self, context: StageContext, leases: LeaseKeeper) -> None:
        self._context = context
        self._leases = leases
        self._heard = Cancellations(most=MAX_HEARD)

    def has_called_off(self, request: LLMRequest) -> bool:
        """Whether a cancellation of this request was heard of."""
        return self._heard.concern(identity(request), submitted_at=request.submitted_at)

    async def run(self) -> None:
        """Listens until it is cancelled. Without Kafka it tries again, and the leases do."""
        options = client_options(self._context.settings)
        while True:
            try:
                start = self._context.now() - HEARD_OF
                async with TopicReader(options, [self._context.settings.topics.commands], start=start) as reader:
                    async for record in reader:
                        await self._hear(record)
            except Exception:  # whatever it is, the leases tell of cancellations a little later
                log.exception("commands_not_heard")
                await asyncio.sleep(AFTER_ERROR_SECONDS)

    async def _hear(self, record: ConsumerRecord) -> None:
        command = await read_command(self._context.codec, record)
        if command is not None:
            self._heard.note(command)
            self._leases.cancel(lambda request: concerns(command, identity(request), submitted_at=request.submitted_at))


def cancellation_of(command: Command) -> Cancellation:
    """The command, in the words of the shared state."""
    return Cancellation(
        request_id=command.request_id or "",
        tenant_id=command.tenant_id or "",
        correlation_id=command.correlation_id or "",
        issued_ms=epoch_ms(command.issued_at),
    )


async def read_command(codec: Codec, record: ConsumerRecord) -> Command | None:
    """The command of a record, or None for one that this version cannot read or does not know."""
    try:
        value = record.value or b""
        if is_json(value):
            command = decode_json(Command, value)
        else:
            command = await patiently("decode", lambda: codec.decode(Command, value))
    except CodecError as error:
        log.warning("command_undecodable", partition=record.partition, offset=record.offset, error=error.reason)
        return None
    if command.action is not CommandAction.CANCEL:
        return None
    return as_written(command, moment_of(record.timestamp / 1000))


def _is_wanted(command: Command, known: Known) -> bool:
    if known.state.is_terminal:
        return False
    summary: Summary | None = load_summary(known.summary)
    who: Identity = summary or Identity(request_id=known.request_id, tenant_id="")
    return concerns(command, who, submitted_at=asked_at(summary) if summary else None)


def _called_off(command: Command) -> Problem:
    by = f" by {command.issued_by}" if command.issued_by else ""
    why = f": {command.reason}" if command.reason else ""
    return problem(FailureCategory.CANCELLED, f"cancelled{by}{why}")
