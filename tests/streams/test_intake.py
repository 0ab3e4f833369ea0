"""What the intake does with each kind of record."""

from datetime import timedelta

import pytest

from connectors.settings import AdmissionSettings, Settings, WorkerSettings
from schemas import LLMRequest
from schemas.codec import SingleObjectCodec
from schemas.dead_letter_headers import read_dead_letter
from schemas.envelope import header
from schemas.request import Message, RoutingConstraints
from schemas.vocabulary import FailureCategory, ProcessingMode, Role, Sensitivity, State
from tests.streams.world import START, World


def request(request_id: str = "r-1", **fields: object) -> LLMRequest:
    return LLMRequest.model_validate(
        {"request_id": request_id, "messages": [Message(role=Role.USER, content="hi")], **fields}
    )


def settings(**sections: object) -> Settings:
    return Settings.model_validate({"redis_url": "redis://none", "kafka_bootstrap": "none", **sections})


async def test_a_request_is_queued_and_put_on_its_lane_with_headers_of_the_conventions() -> None:
    world = World()
    await world.intake(world.request_delivery(request(correlation_id="c-9")))
    (task,) = world.tasks()
    assert task.decision.provider == "simulated"
    assert task.deadline_at == START + timedelta(hours=4)
    (event,) = world.events().values()
    assert (event.type, event.state, event.state_version) == ("QUEUE_REQUEST_QUEUED", State.QUEUED, 1)
    for record in world.log:
        assert record.key == b"r-1"
        assert header(record.headers, "ce_specversion") == "1.0"
        assert header(record.headers, "ce_correlationid") == "c-9"
        assert header(record.headers, "content-type") == "application/avro"
        assert (header(record.headers, "traceparent") or "").startswith("00-")


async def test_the_senders_trace_goes_on_in_what_is_written() -> None:
    world = World()
    parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    delivery = world.request_delivery(request())
    await world.intake(type(delivery)(**{**_fields(delivery), "headers": (("traceparent", parent),)}))
    traces = {header(record.headers, "traceparent") for record in world.log}
    assert all(trace and trace.split("-")[1] == "0af7651916cd43dd8448eb211c80319c" for trace in traces)
    assert parent.decode() not in traces


async def test_a_second_record_with_the_same_id_is_silently_dropped() -> None:
    world = World()
    await world.intake(world.request_delivery(request(), offset=0))
    written = len(world.log)
    await world.intake(world.request_delivery(request(), offset=1))
    assert len(world.log) == written


async def test_an_invalid_second_record_does_not_end_the_first_one() -> None:
    """Its bytes go to the dead-letter topic; the live request gets no second terminal state."""
    world = World()
    await world.intake(world.request_delivery(request()))
    await world.intake(world.delivery(b'{"request_id": "r-1", "kind": "poem"}', key=b"r-1", offset=1))
    assert [event.state for event in world.events().values()] == [State.QUEUED]
    assert world.results() == {}
    assert len(world.written("llm.requests.dlt")) == 1


@pytest.mark.parametrize(
    ("value", "category", "field"),
    [
        (b'{"request_id": "r-1"}', FailureCategory.INVALID_REQUEST, "messages"),
        (b'{"request_id": "r-1", "mesages": []}', FailureCategory.INVALID_REQUEST, "mesages"),
        (
            b'{"request_id": "r-1", "messages": [{"role": "user", "content": "x"}], "parameters": {"temperature": 9}}',
            FailureCategory.INVALID_REQUEST,
            "parameters.temperature",
        ),
        (b"{broken", FailureCategory.UNDECODABLE, "(record)"),
        (b"\xc3\x01garbage-and-more", FailureCategory.UNDECODABLE, "(record)"),
        (b"", FailureCategory.UNDECODABLE, "(record)"),
        (b" \n not a record \t ", FailureCategory.UNDECODABLE, "(record)"),
        (SingleObjectCodec().encode(request(model="gpt-x")), FailureCategory.NO_ROUTE, "model"),
        (SingleObjectCodec().encode(request(provider="nobody")), FailureCategory.NO_ROUTE, "provider"),
        (SingleObjectCodec().encode(request(result_topic="secrets")), FailureCategory.DENIED, "result_topic"),
        (b'{"request_id": "r-1", "x": "' + b"y" * 2000 + b'"}', FailureCategory.TOO_LARGE, "(record)"),
    ],
)
async def test_what_cannot_pass_is_rejected_with_field_reason_and_remedy_and_kept_byte_for_byte(
    value: bytes, category: FailureCategory, field: str
) -> None:
    world = World(settings=settings(worker=WorkerSettings(max_request_bytes=1500)))
    await world.intake(world.delivery(value, key=b"r-1"))
    (result,) = world.results().values()
    assert result.status is State.REJECTED
    assert result.problem is not None
    assert (result.problem.category, result.problem.field) == (category, field)
    assert result.problem.message
    assert result.problem.remedy
    (event,) = world.events().values()
    assert (event.type, event.reason) == ("QUEUE_REQUEST_REJECTED", category)
    (letter,) = world.written("llm.requests.dlt")
    assert letter.value == value
    described = read_dead_letter(letter.headers, size_bytes=len(value))
    assert (described.category, described.request_id, described.original_topic) == (category, "r-1", "llm.requests")


async def test_a_record_without_a_readable_id_goes_to_the_dead_letters_alone() -> None:
    world = World()
    await world.intake(world.delivery(b"\xff\xfe", key=b"\x80"))
    assert [record.topic for record in world.log] == ["llm.requests.dlt"]


async def test_a_request_past_its_deadline_expires_at_the_door() -> None:
    world = World()
    await world.intake(world.request_delivery(request(deadline_at=START - timedelta(seconds=1))))
    (result,) = world.results().values()
    assert (result.status, result.problem and result.problem.category) == (State.EXPIRED, FailureCategory.DEADLINE)
    assert world.tasks() == []


async def test_in_immediate_mode_a_full_system_rejects_with_a_time_to_come_back() -> None:
    world = World(settings=settings(admission=AdmissionSettings(max_requests=1, high_watermark=1, low_watermark=0.5)))
    await world.intake(world.request_delivery(request("r-1")))
    late = request("r-2", processing_mode=ProcessingMode.IMMEDIATE)
    await world.intake(world.request_delivery(late, offset=1))
    (result,) = world.results().values()
    assert result.problem is not None
    assert result.problem.category is FailureCategory.QUEUE_FULL
    assert result.problem.retry_after_seconds


async def test_a_submission_at_the_end_of_time_has_a_deadline_all_the_same() -> None:
    world = World()
    await world.intake(world.request_delivery(request(submitted_at="9999-12-31T23:00:00Z")))
    assert len(world.tasks()) == 1


async def test_a_record_without_any_value_keeps_having_none_in_the_dead_letters() -> None:
    world = World()
    delivery = world.delivery(b"", key=b"r-1")
    await world.intake(type(delivery)(**{**_fields(delivery), "is_null": True}))
    assert [letter.value for letter in world.written("llm.requests.dlt")] == [None]


async def test_a_dead_letter_that_no_topic_takes_says_where_the_record_lies() -> None:
    """A compressed record may be larger, unpacked, than the dead-letter topic allows."""
    world = World(settings=settings(worker=WorkerSettings(max_request_bytes=1500)), largest_value=10_000)
    await world.intake(world.delivery(b"{" + b"x" * 20_000, key=b"r-1"))
    (letter,) = world.written("llm.requests.dlt")
    assert letter.value is None
    assert header(letter.headers, "sluice_dlt-value-left-out") == "20001 bytes at llm.requests-0-0"
    assert [result.status for result in world.results().values()] == [State.REJECTED]


async def test_sensitive_content_is_denied_to_a_provider_that_is_not_local() -> None:
    world = World()
    entry = world.catalogue.providers["simulated"].model_copy(update={"local": False})
    world.catalogue = world.catalogue.model_copy(update={"providers": {"simulated": entry}})
    sensitive = request(constraints=RoutingConstraints(sensitivity=Sensitivity.SENSITIVE))
    await world.intake(world.request_delivery(sensitive))
    (result,) = world.results().values()
    assert result.problem is not None
    assert result.problem.field == "constraints.sensitivity"
    assert world.tasks() == []


def _fields(delivery: object) -> dict[str, object]:
    return {name: getattr(delivery, name) for name in delivery.__slots__}  # type: ignore[attr-defined]
