"""A request in JSON: accepted with few fields, refused with the field and the reason."""

import json
from typing import Any

import pytest

from schemas import LLMRequest
from schemas.codec import CodecError, InvalidRecordError, UndecodableError, decode_json, is_json
from schemas.vocabulary import Kind, Priority

CHAT: dict[str, Any] = {"request_id": "r-1", "messages": [{"role": "user", "content": "x"}]}
COMPARISON: dict[str, Any] = {
    "request_id": "r-1",
    "kind": "comparison",
    "prompt": "Which is better?",
    "essay_a": "A",
    "essay_b": "B",
}


def decoded(fields: Any) -> LLMRequest:
    return decode_json(LLMRequest, json.dumps(fields).encode())


def test_a_chat_needs_an_id_and_a_message() -> None:
    """The rest has defaults that can be relied on."""
    request = decoded(CHAT)
    assert (request.kind, request.priority, request.tenant_id) == (Kind.CHAT, Priority.NORMAL, "default")


def test_a_json_schema_may_be_given_as_an_object() -> None:
    """In JSON nobody wants to write JSON inside a string."""
    schema = {"type": "object", "properties": {"winner": {"type": "string"}}}
    request = decoded(CHAT | {"response_format": {"json_schema": schema}})
    assert request.response_format is not None
    assert json.loads(request.response_format.json_schema) == schema


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"messages": CHAT["messages"]}, "request_id", "Field required"),
        (CHAT | {"request_id": ""}, "request_id", "at least 1 character"),
        (CHAT | {"request_id": "a b"}, "request_id", "match pattern"),
        (CHAT | {"request_id": "r\n"}, "request_id", "match pattern"),
        (CHAT | {"request_id": "r" * 129}, "request_id", "at most 128"),
        (CHAT | {"messages": []}, "messages", "a chat needs at least one message"),
        (CHAT | {"messages": [{"role": "user", "content": ""}]}, "messages.0.content", "at least 1 character"),
        (
            CHAT | {"messages": [{"role": "robot", "content": "x"}]},
            "messages.0.role",
            "'system', 'user' or 'assistant'",
        ),
        (COMPARISON | {"essay_b": None}, "essay_b", "a comparison needs prompt, essay_a and essay_b"),
        (CHAT | {"parameters": {"temperature": 3}}, "parameters.temperature", "less than or equal to 2"),
        (CHAT | {"parameters": {"max_tokens": 0}}, "parameters.max_tokens", "greater than 0"),
        (CHAT | {"parameters": {"seed": 2**63}}, "parameters.seed", "less than or equal to 9223372036854775807"),
        (CHAT | {"constraints": {"max_cost_usd": float("inf")}}, "constraints.max_cost_usd", "finite"),
        (CHAT | {"constraints": {"sensitivity": "secret"}}, "constraints.sensitivity", "'public', 'internal'"),
        (CHAT | {"deadline_at": "tomorrow"}, "deadline_at", "valid datetime"),
        (CHAT | {"deadline_at": "2026-11-21T12:00:00"}, "deadline_at", "needs a time zone"),
        (CHAT | {"deadline_at": "0001-01-01T00:00:00+01:00"}, "deadline_at", "between the years"),
        (CHAT | {"response_format": {"json_schema": "[]"}}, "response_format.json_schema", "JSON text of an object"),
        (CHAT | {"response_format": {"json_schema": "["}}, "response_format.json_schema", "Expecting value"),
        (CHAT | {"metadata": {"a": 1}}, "metadata.a", "valid string"),
        (CHAT | {"metadata": {str(n): "" for n in range(65)}}, "metadata", "at most 64"),
        (CHAT | {"temprature": 1}, "temprature", "not permitted"),
        ([], None, "should be an object"),
    ],
)
def test_a_refusal_names_the_field_and_the_reason(fields: Any, field: str | None, reason: str) -> None:
    """Who sent it can mend it without asking us."""
    with pytest.raises(InvalidRecordError) as caught:
        decoded(fields)
    assert caught.value.field == field
    assert reason in caught.value.reason


def test_a_refusal_keeps_what_could_be_read() -> None:
    """The id of an invalid request is known, so that its sender can be told."""
    with pytest.raises(InvalidRecordError) as caught:
        decoded({"request_id": "r-1", "user_id": "u-1"})
    assert caught.value.fields == {"request_id": "r-1", "user_id": "u-1"}


def test_a_refusal_repeats_neither_the_text_nor_a_name_without_end() -> None:
    """The reason goes into headers and logs: no prompt in it, and no more than a line of the sender's making."""
    text = "my secret prompt" * 10
    for fields in (CHAT | {"prompt": [text]}, CHAT | {"priority": text}, CHAT | {"messages": text}):
        with pytest.raises(InvalidRecordError) as caught:
            decoded(fields)
        assert "secret" not in caught.value.reason
    with pytest.raises(InvalidRecordError) as caught:
        decoded(CHAT | {"x" * 100_000: 1})
    assert caught.value.field is not None
    assert len(caught.value.field) <= 200


@pytest.mark.parametrize("data", [b"", b"{", b"{'a': 1}", b'{"a": 1', b"\xff{}", b"\x00\x00\x00\x00\x01"])
def test_what_is_no_json_is_undecodable(data: bytes) -> None:
    """A syntax error has no field, and says where the text ends to make sense."""
    with pytest.raises(UndecodableError, match=r"not JSON: .* line 1") as caught:
        decode_json(LLMRequest, data)
    assert caught.value.field is None


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b'{"a": 1}', True), (b' \r\n\t{"a": 1}', True), (b"[]", False), (b"\xc3\x01{", False), (b"", False)],
)
def test_json_is_told_by_its_first_character(data: bytes, expected: bool) -> None:
    """A producer that forgot the content type is understood all the same."""
    assert is_json(data) is expected


def test_every_refusal_is_one_kind_of_error() -> None:
    """A caller that catches CodecError has caught them all."""
    assert issubclass(UndecodableError, CodecError)
    assert issubclass(InvalidRecordError, CodecError)
