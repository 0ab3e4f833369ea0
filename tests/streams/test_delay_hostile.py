"""Records of a delay topic that somebody else may have written: none is lost for them, and none is held up for long."""

from datetime import UTC, datetime, timedelta

import pytest

from connectors.kafka.producer import Outgoing
from tests.streams.test_delay_stage import SHORT, arrivals, delayed_by, run


def with_header(record: Outgoing, value: bytes) -> None:
    record.headers[:] = [  # type: ignore[index]
        (name, value if name == "retry_topic-backoff-timestamp" else kept) for name, kept in record.headers
    ]


@pytest.mark.parametrize("value", ["\N{SUPERSCRIPT TWO}".encode(), b"9" * 400, b"9" * 5000, b"9" * 15, b"-5", b"\xff"])
async def test_a_header_that_is_no_number_loses_no_record(value: bytes) -> None:
    world = await delayed_by(1.0, 1.0)
    with_header(world.delayed()[0], value)
    consumer = await run(world, seconds=5)
    assert set(arrivals(world)) == {"r-0", "r-1"}
    assert consumer.committed[SHORT] == len(world.written(SHORT.topic))


@pytest.mark.parametrize("written", [datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), timedelta(days=3)])
async def test_a_record_from_the_future_holds_up_nobody(written: datetime | timedelta) -> None:
    """Its writer's clock is wrong, and what it says of its wait cannot be read."""
    world = await delayed_by(1.0, 1.0)
    first, _ = world.delayed()
    with_header(first, b"?")
    world.written_at[id(first)] = written if isinstance(written, datetime) else world.clock + written
    await run(world, seconds=5)
    assert set(arrivals(world)) == {"r-0", "r-1"}
    assert all(after >= 1.0 for after in arrivals(world).values())
