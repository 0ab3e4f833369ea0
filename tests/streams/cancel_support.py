"""Commands that call requests off, and what they leave behind."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from schemas.codec import SingleObjectCodec
from schemas.command import Command
from schemas.vocabulary import FailureCategory, State
from streams.commands import CancelListener
from tests.streams.flow import assert_sound
from tests.streams.samples import request
from tests.streams.world import START, Crasher, World

SENT = request(tenant_id="t", correlation_id="c")
LATER = START + timedelta(seconds=1)


def command(**names: Any) -> Command:
    return Command.model_validate({"command_id": "c-1", "issued_at": LATER, **names})


BY_ID = command(request_id="r-1", reason="not needed", issued_by="mw")
THAT_FIT = [
    {"request_id": "r-1"},
    {"tenant_id": "t"},
    {"correlation_id": "c"},
    {"request_id": "r-1", "tenant_id": "t"},
    {"tenant_id": "t", "correlation_id": "c"},
    {"request_id": "r-1", "tenant_id": "t", "correlation_id": "c"},
]
THAT_DO_NOT = [
    {"request_id": "r-2"},
    {"tenant_id": "u"},
    {"correlation_id": "d"},
    {"request_id": "r-1", "tenant_id": "u"},
    {"tenant_id": "t", "correlation_id": "d"},
    {"request_id": "r-1", "tenant_id": "t", "correlation_id": "d"},
]


async def cancelled(world: World, *, attempts: int = 0) -> None:
    """What every cancellation leaves behind."""
    (result,) = world.results().values()
    assert (result.status, len(result.attempts)) == (State.CANCELLED, attempts)
    assert result.problem is not None
    assert result.problem.category is FailureCategory.CANCELLED
    event = list(world.events().values())[-1]
    assert (event.type, event.reason) == ("QUEUE_REQUEST_CANCELLED", FailureCategory.CANCELLED)
    assert_sound(world)
    await world.confirm_all()
    assert await world.state.outstanding() == (0, 0)
    assert world.written("llm.requests.dlt") == []


async def hear_of(world: World, heard: Command) -> None:
    assert world.leases is not None
    context, _ = world._process(Crasher(), "/lane")
    await CancelListener(context, world.leases)._hear(record_of(SingleObjectCodec().encode(heard)))


def record_of(value: bytes | None) -> Any:
    return SimpleNamespace(value=value, partition=0, offset=0, timestamp=LATER.timestamp() * 1000)
