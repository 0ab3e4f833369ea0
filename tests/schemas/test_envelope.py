"""Headers: stable ids, CloudEvents names, and dead letters that carry where they came from."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest

from schemas import DeadLetter
from schemas.dead_letter_headers import Redrive, dead_letter_headers, read_dead_letter, read_redrive, redrive_headers
from schemas.envelope import EVENT_NAMESPACE, attempt_id, cloud_event, event_id, header, result_id
from schemas.vocabulary import FailureCategory

NOON = datetime(2026, 11, 21, 12, 0, 0, 5000, UTC)
FIRST = DeadLetter(
    request_id="r-1",
    tenant_id="team",
    category=FailureCategory.INVALID_REQUEST,
    message="a chat needs at least one message ümläut",
    field="messages",
    original_topic="llm.requests",
    original_partition=3,
    original_offset=41,
    original_timestamp=NOON,
    redrive_count=1,
    state_version=6,
    attempt=2,
    provider="openai",
    model="m",
    size_bytes=17,
)
SECOND = DeadLetter(
    message="cannot be read", original_topic="llm.requests", original_partition=0, original_offset=99, size_bytes=17
)


def test_ids_never_change() -> None:
    """They are computed by a namespace that is fixed for ever: readers drop repeats by them, across our versions."""
    assert UUID("6f2f0b7e-54b1-5d5e-9d6b-1b8f6c1c2a10") == EVENT_NAMESPACE
    assert event_id("r-1", 2) == "23309473-2e95-586b-a9a2-ac59d4a549f2"
    assert result_id("r-1", 2) == "144a833c-d34e-5935-8097-d9e3432468a5"
    assert attempt_id("r-1", 2) == "967412a6-028c-57cd-b3f1-da0b449a7f3f"


def test_ids_of_different_things_differ() -> None:
    """Two versions, two requests, an event and its result, an attempt: none shares an id with another."""
    ids = [
        event_id("r-1", 1),
        event_id("r-1", 2),
        event_id("r-2", 1),
        result_id("r-1", 1),
        result_id("r-1", 2),
        attempt_id("r-1", 1),
        attempt_id("r-1", 2),
    ]
    assert len(set(ids)) == len(ids)


def test_a_record_carries_cloud_events_headers() -> None:
    """Names and forms are those of CloudEvents 1.0 in Kafka's binary mode; what is not known is left out."""
    trace = [("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
    headers = cloud_event(
        type="QUEUE_REQUEST_COMPLETED",
        source="sluice/lane",
        key="r-1",
        id="id-1",
        time=NOON.astimezone(timezone(timedelta(hours=1))),
        correlation_id="c-1",
        sequence=4,
        trace=trace,
    )
    assert headers == [
        ("ce_specversion", b"1.0"),
        ("ce_type", b"QUEUE_REQUEST_COMPLETED"),
        ("ce_source", b"sluice/lane"),
        ("ce_id", b"id-1"),
        ("ce_time", b"2026-11-21T12:00:00.005Z"),
        ("ce_partitionkey", b"r-1"),
        ("content-type", b"application/avro"),
        ("ce_correlationid", b"c-1"),
        ("ce_sequence", b"4"),
        *trace,
    ]


def test_a_record_without_an_id_gets_one_of_its_own() -> None:
    """Two records that were given no id and no time do not look like repeats of each other."""
    first, second = (cloud_event(type="t", source="s", key="k") for _ in range(2))
    assert header(first, "ce_id") != header(second, "ce_id")


def test_the_last_of_repeated_headers_counts() -> None:
    """Kafka allows repeats; bytes that are no text do not break the reader."""
    headers = [("a", b"1"), ("b", b"\xff"), ("a", b"2"), ("n", None)]
    assert (header(headers, "a"), header(headers, "b"), header(headers, "c")) == ("2", "\ufffd", None)
    assert header(headers, "n") is None


def test_a_dead_letter_is_described_by_its_headers() -> None:
    """What is written is what is read."""
    assert read_dead_letter(dead_letter_headers(FIRST, []), size_bytes=17) == FIRST
    assert read_dead_letter(dead_letter_headers(SECOND, []), size_bytes=17) == SECOND


def test_headers_that_came_in_stay_as_they_came() -> None:
    """Names, bytes, order and repeats of the original headers are kept, also where they are no text."""
    original = [("x", b"\xff\x00"), ("content-type", b"application/json"), ("x", b""), ("traceparent", b"00-1-2-01")]
    assert dead_letter_headers(FIRST, original)[: len(original)] == original


def test_a_second_dead_letter_replaces_the_first() -> None:
    """A request that fails, is redriven and fails again says so once, and nothing of the first failure stays."""
    original = [("x", b"1")]
    headers = dead_letter_headers(SECOND, dead_letter_headers(FIRST, original))
    assert read_dead_letter(headers, size_bytes=17) == SECOND
    assert headers == dead_letter_headers(SECOND, original)
    names = [name for name, _ in headers]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "headers",
    [
        [],
        # Spring for Apache Kafka writes these in binary.
        [("kafka_dlt-original-partition", b"\x00\x00\x00\x03"), ("kafka_dlt-original-offset", b"\x00" * 8)],
        [("kafka_dlt-original-timestamp", b"9" * 18), ("sluice_dlt-redrive-count", b"-1")],
        [("sluice_dlt-category", b"a word of next year"), ("kafka_dlt-original-offset", "٣".encode())],
    ],
    ids=["none", "Spring's", "out of range", "unknown word"],
)
def test_what_others_wrote_there_is_passed_over(headers: list[tuple[str, bytes]]) -> None:
    """One odd record in the dead-letter topic does not keep anybody from listing the others."""
    letter = read_dead_letter(headers, size_bytes=1)
    assert (letter.category, letter.original_partition, letter.original_offset) == (FailureCategory.UNKNOWN, 0, 0)
    assert (letter.original_timestamp, letter.redrive_count) == (None, 0)


def test_a_redriven_record_has_the_headers_that_came_in_and_a_count() -> None:
    """What the dead letter added is gone, and the count grows by one each time it is set aside and redriven."""
    came_in = [("ce_id", b"1"), ("mine", b"\xff")]
    once = redrive_headers(FIRST, dead_letter_headers(FIRST, came_in))
    assert once[:2] == came_in
    assert read_redrive(once) == Redrive(count=2, state_version=6, attempt=2)
    again = dead_letter_headers(SECOND.model_copy(update={"redrive_count": 2}), once)
    assert read_redrive(again) is None
    assert redrive_headers(read_dead_letter(again, size_bytes=1), again)[:2] == came_in


@pytest.mark.parametrize("count", [b"", b"0", b"-1", b"x", b"9" * 40])
def test_a_redrive_count_that_is_none_counts_for_nothing(count: bytes) -> None:
    """Anybody may write headers: what is no positive number is passed over."""
    assert read_redrive([("sluice_redrive-count", count)]) is None
