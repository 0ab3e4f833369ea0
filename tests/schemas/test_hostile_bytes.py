"""No bytes, however wrong, raise anything but CodecError; and what is accepted can be written again."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from schemas import RECORDS, LLMRequest, Record
from schemas.codec import (
    CodecError,
    SingleObjectCodec,
    UndecodableError,
    decode_json,
    decode_single_object,
    encode_body,
    single_object_header,
)
from tests.schemas.strategies import json_values, records

THOROUGH = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
EACH_RECORD = pytest.mark.parametrize("record_type", RECORDS, ids=lambda record_type: record_type.__name__)

CHAT = {"request_id": "r-1", "messages": [{"role": "user", "content": "x"}]}


@EACH_RECORD
@given(data=st.binary(max_size=300))
@THOROUGH
def test_arbitrary_bytes_are_undecodable_or_a_record(record_type: type[Record], data: bytes) -> None:
    """Bytes without any framing, and the same behind a valid header."""
    for value in (data, single_object_header(record_type) + data):
        with contextlib.suppress(CodecError):
            decode_single_object(record_type, value)


@EACH_RECORD
@given(data=st.data())
@settings(THOROUGH, max_examples=50)
def test_a_damaged_record_is_undecodable_or_a_record(record_type: type[Record], data: st.DataObject) -> None:
    """Valid bytes with some of them changed, and cut off somewhere."""
    value = bytearray(SingleObjectCodec().encode(data.draw(records(record_type))))
    for index in data.draw(st.lists(st.integers(0, len(value) - 1), max_size=3)):
        value[index] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CodecError):
        decode_single_object(record_type, bytes(value[: data.draw(st.integers(0, len(value)))]))


@given(data=st.binary(max_size=200) | json_values().map(lambda value: json.dumps(value).encode()))
@example(b"")
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b'{"request_id": "\\ud800"}')
@example(b'{"seed": 1' + b"0" * 5000 + b"}")
@example(b"\xef\xbb\xbf{}")
@THOROUGH
def test_arbitrary_json_is_undecodable_or_invalid(data: bytes) -> None:
    """Text that is no JSON, and JSON that is no request."""
    with pytest.raises(CodecError):
        decode_json(LLMRequest, data)


def _paths() -> list[tuple[str, ...]]:
    own = [(name,) for name in LLMRequest.model_fields]
    return own + [
        (name, inner)
        for name in ("parameters", "constraints", "context", "response_format", "metadata")
        for inner in (*getattr(LLMRequest.model_fields[name].annotation, "model_fields", ()), "json_schema", "name")
    ]


@given(path=st.sampled_from(_paths()), value=json_values())
@example(("parameters", "seed"), 2**70)
@example(("parameters", "max_tokens"), 2**63)
@example(("constraints", "max_latency_ms"), 2**63)
@example(("constraints", "max_cost_usd"), float("inf"))
@example(("constraints", "max_cost_usd"), float("nan"))
@example(("deadline_at",), "0001-01-01T00:00:00+01:00")
@example(("deadline_at",), "9999-12-31T23:59:59-05:00")
@example(("deadline_at",), "2026-11-21T12:00:00")
@example(("response_format", "json_schema"), "[" * 100_000)
@example(("response_format", "json_schema"), '{"a":' * 100_000)
@example(("response_format", "json_schema"), {"type": "object"})
@THOROUGH
def test_an_accepted_json_request_can_be_written(path: tuple[str, ...], value: Any) -> None:
    """A request is refused at the door or goes through: none is accepted that cannot be put on a lane."""
    fields: dict[str, Any] = dict(CHAT)
    if len(path) == 1:
        fields[path[0]] = value
    else:
        fields[path[0]] = {path[1]: value}
    try:
        request = decode_json(LLMRequest, json.dumps(fields).encode())
    except CodecError:
        return
    assert decode_single_object(LLMRequest, single_object_header(LLMRequest) + encode_body(request)) == request


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\xc3\x01\x00", "cut off"),
        (b"\xc3\x01" + bytes(8) + b"x", "fingerprint 0000000000000000"),
        (b"\x00\x00\x00\x00\x07x", "SCHEMA_REGISTRY_URL"),
        (b"hello", "begins with 68 65"),
        (single_object_header(LLMRequest), "not Avro of LLMRequest"),
    ],
)
def test_the_reason_says_what_is_wrong_with_the_framing(data: bytes, reason: str) -> None:
    """A person who reads the reason in the dead-letter topic knows what the producer did wrong."""
    with pytest.raises(UndecodableError, match=reason):
        decode_single_object(LLMRequest, data)


def test_bytes_after_the_record_are_not_passed_over() -> None:
    """A value with something behind the record was not written by the schema it names."""
    value = SingleObjectCodec().encode(LLMRequest.model_validate(CHAT))
    with pytest.raises(UndecodableError, match="left over"):
        decode_single_object(LLMRequest, value + b"\x00")
