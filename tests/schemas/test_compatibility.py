"""Today's schemas read what every release wrote; and the check that says so can say no."""

import copy
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest

from schemas import RECORDS, LLMRequest, Record, StatusEvent, avro_schemas
from schemas.avro_schemas import RELEASED_FOLDER, as_text, fingerprint, generated_schema, known_writers
from schemas.codec import UndecodableError, decode_body, decode_single_object
from tests.schemas.compatibility import breaks, breaks_since_releases

Change = Callable[[dict[str, Any]], None]

OLD_FIELDS: dict[str, Any] = {
    "request_id": "r-1",
    "messages": [{"role": "user", "content": "x"}],
    "parameters": {},
    "constraints": {},
    "result_topic": "team.results",
    "colour": "blue",
}


def test_nothing_that_was_released_is_broken() -> None:
    """Each committed release can be read by the current schemas, and does without nothing they no longer write."""
    assert breaks_since_releases(RELEASED_FOLDER) == {}


def test_each_schema_is_compatible_with_itself() -> None:
    """The check finds nothing where nothing changed."""
    for record in RECORDS:
        schema = generated_schema(record)
        assert breaks(current=schema, released=schema) == []


@pytest.mark.parametrize(
    ("record", "change", "reason"),
    [
        (LLMRequest, lambda schema: _remove(schema, "request_id"), "a released reader needs what is gone: request_id"),
        (LLMRequest, lambda schema: _add(schema, "region", "string"), "cannot read what was released: region"),
        (LLMRequest, lambda schema: _retype(schema, "stream", "string"), "reader type: string not compatible"),
        (LLMRequest, lambda schema: _retype(schema, "user_id", "string"), "string not compatible with .* null"),
        (StatusEvent, lambda schema: _symbols(schema, "state").remove("expired"), "expired"),
        (LLMRequest, lambda schema: _rename_type(schema, "kind", "Sort"), "expected: sluice.v1.Kind"),
    ],
    ids=[
        "field without default removed",
        "field without default added",
        "type changed",
        "null no longer allowed",
        "enum symbol removed",
        "type renamed",
    ],
)
def test_a_change_that_breaks_somebody_is_found(record: type[Record], change: Change, reason: str) -> None:
    """The check names what broke, so that it cannot pass by finding nothing ever."""
    current = copy.deepcopy(generated_schema(record))
    change(current)
    assert _matching(breaks(current=current, released=generated_schema(record)), reason)


@pytest.mark.parametrize(
    "change",
    [
        lambda schema: _add(schema, "region", ["null", "string"], default=None),
        lambda schema: _remove(schema, "user_id"),
        lambda schema: _symbols(schema, "priority").append("urgent"),
        lambda schema: schema.update(doc="Better words."),
    ],
    ids=["field with default added", "field with default removed", "enum symbol added", "documentation changed"],
)
def test_a_change_that_breaks_nobody_is_allowed(change: Change) -> None:
    """The contract can grow."""
    current = copy.deepcopy(generated_schema(LLMRequest))
    change(current)
    assert breaks(current=current, released=generated_schema(LLMRequest)) == []


@pytest.fixture
def older_request() -> dict[str, Any]:
    """LLMRequest as a release might have had it: two fields fewer, one with a narrower type, and one that is gone."""
    schema = copy.deepcopy(generated_schema(LLMRequest))
    _remove(schema, "context")
    _remove(schema, "metadata")
    _retype(schema, "result_topic", "string")
    _add(schema, "colour", "string", default="none")
    return schema


@pytest.fixture
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, older_request: dict[str, Any]) -> Iterator[Path]:
    """A folder of releases with one in it, in place of the real one."""
    folder = tmp_path / "0.0.9"
    folder.mkdir()
    (folder / "LLMRequest.avsc").write_text(as_text(older_request))
    monkeypatch.setattr(avro_schemas, "RELEASED_FOLDER", tmp_path)
    known_writers.cache_clear()
    yield tmp_path
    known_writers.cache_clear()


def test_what_a_release_wrote_is_read(released: Path, older_request: dict[str, Any]) -> None:
    """A record of an older release is told by its fingerprint, and resolved to the current schema."""
    assert breaks_since_releases(released) == {}
    value = b"\xc3\x01" + fingerprint(older_request) + _body(older_request, OLD_FIELDS)
    request = decode_single_object(LLMRequest, value)
    assert (request.request_id, request.result_topic, request.metadata) == ("r-1", "team.results", {})
    assert request.context == LLMRequest.model_fields["context"].default


def test_a_broken_release_is_named(released: Path, older_request: dict[str, Any]) -> None:
    """The finding says which release of which record cannot be read, and why."""
    _retype(older_request, "kind", "long")
    (released / "0.0.9" / "LLMRequest.avsc").write_text(as_text(older_request))
    (released / "0.0.9" / "Gone.avsc").write_text(as_text(generated_schema(StatusEvent) | {"name": "Gone"}))
    found = breaks_since_releases(released)
    assert _matching(found["0.0.9/LLMRequest.avsc"], "reader type: enum not compatible with writer type: long")
    assert _matching(found["0.0.9/Gone.avsc"], "the record is gone")


@pytest.mark.parametrize("field", ["kind", "priority"])
def test_an_unknown_word_is_refused_and_not_taken_for_another(field: str) -> None:
    """A newer writer's word must not be read as the first that this version knows, as `high` or as `public`."""
    newer = copy.deepcopy(generated_schema(LLMRequest))
    _symbols(newer, field).append("newer")
    body = _body(newer, {**OLD_FIELDS, "context": {}, "metadata": {}, field: "newer"})
    with pytest.raises(UndecodableError, match="newer"):
        decode_body(LLMRequest, body, avro_schemas.parse(newer))


def test_an_unknown_failure_is_read_as_unknown() -> None:
    """Where the vocabulary has a word for it, a newer word is read as that: an event is not lost for its reason."""
    newer = copy.deepcopy(generated_schema(StatusEvent))
    reason = next(field for field in newer["fields"] if field["name"] == "reason")
    reason["type"][1]["symbols"].append("eaten_by_the_cat")
    fields = {
        "type": "QUEUE_REQUEST_FAILED",
        "request_id": "r-1",
        "state": "failed",
        "state_version": 3,
        "reason": "eaten_by_the_cat",
        "occurred_at": 0,
        "submitted_at": 0,
    }
    event = decode_body(StatusEvent, _body(newer, fields), avro_schemas.parse(newer))
    assert event.reason == "unknown"


def _body(schema: dict[str, Any], fields: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, avro_schemas.parse(copy.deepcopy(schema)), fields)
    return out.getvalue()


def _field(schema: dict[str, Any], name: str) -> dict[str, Any]:
    return next(field for field in schema["fields"] if field["name"] == name)


def _remove(schema: dict[str, Any], name: str) -> None:
    schema["fields"].remove(_field(schema, name))


def _add(schema: dict[str, Any], name: str, type_: Any, **more: Any) -> None:
    schema["fields"].append({"name": name, "type": type_, **more})


def _retype(schema: dict[str, Any], name: str, type_: Any) -> None:
    field = _field(schema, name)
    field.pop("default", None)
    field["type"] = type_


def _symbols(schema: dict[str, Any], name: str) -> list[str]:
    symbols = _field(schema, name)["type"]["symbols"]
    assert isinstance(symbols, list)
    return symbols


def _rename_type(schema: dict[str, Any], name: str, new: str) -> None:
    _field(schema, name)["type"]["name"] = new


def _matching(found: list[str], pattern: str) -> bool:
    return any(re.search(pattern, words) for words in found)
