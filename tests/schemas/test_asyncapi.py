"""The AsyncAPI document is valid, and says what the topics and records are."""

import json
from pathlib import Path
from typing import Any

import fastavro
import jsonschema_rs
import pytest

from schemas import LLMRequest, Record
from schemas.asyncapi import document
from schemas.avro_schemas import generated_schema
from schemas.dead_letter_headers import dead_letter_headers, redrive_headers
from schemas.envelope import cloud_event
from schemas.generate import ASYNCAPI_FILE
from schemas.topics import Topics
from tests.schemas.test_envelope import FIRST, NOON

PUBLISHED_SCHEMA = Path(__file__).with_name("asyncapi-3.0.0.schema.json")
"""`schemas/3.0.0-without-$id.json` of the npm package @asyncapi/specs 6.11.1, Apache-2.0, AsyncAPI Initiative."""


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(ASYNCAPI_FILE.read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def validator() -> jsonschema_rs.Draft7Validator:
    return jsonschema_rs.Draft7Validator(json.loads(PUBLISHED_SCHEMA.read_text(encoding="utf-8")))


def test_the_document_is_valid_asyncapi(committed: dict[str, Any], validator: jsonschema_rs.Draft7Validator) -> None:
    """It passes the JSON schema that the AsyncAPI project publishes."""
    assert [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(committed)] == []


def test_the_validation_finds_mistakes(committed: dict[str, Any], validator: jsonschema_rs.Draft7Validator) -> None:
    """The published schema looks into bindings and into Avro, so a wrong document does not pass it."""
    for path, value in (
        (("channels", "requests", "bindings", "kafka", "partitions"), 0),
        (("operations", "sendResults", "action"), "publish"),
        (("components", "messages", "Delta", "payload", "schema", "type"), "recrd"),
    ):
        wrong = json.loads(json.dumps(committed))
        place = wrong
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value
        assert not validator.is_valid(wrong), path


def test_every_reference_leads_somewhere(committed: dict[str, Any]) -> None:
    """A reader's tool resolves every $ref within the document."""
    references = list(_references(committed))
    assert references
    for reference in references:
        place: Any = committed
        for name in reference.removeprefix("#/").split("/"):
            assert name in place, reference
            place = place[name]


def test_every_topic_is_a_channel_with_its_promises() -> None:
    """Address, partitions, retention, cleanup and size of each channel are those that `sluice topics create` uses."""
    bindings = {
        address: channel["bindings"]["kafka"]
        for channel in document()["channels"].values()
        for address in _addresses(channel)
    }
    specs = Topics().specs(["{provider}"])
    assert set(bindings) == {spec.name for spec in specs}
    for spec in specs:
        promised = bindings[spec.name]["topicConfiguration"]
        assert bindings[spec.name]["partitions"] == spec.partitions
        assert {
            "cleanup.policy": ",".join(promised["cleanup.policy"]),
            "retention.ms": str(promised["retention.ms"]),
            "max.message.bytes": str(promised["max.message.bytes"]),
        } == spec.config


def test_every_channel_carries_the_record_of_its_topic() -> None:
    """The payload of each Avro message is the schema of the topic's record, and is valid Avro."""
    records: dict[str, type[Record] | None] = {spec.name: spec.record for spec in Topics().specs(["{provider}"])}
    messages = document()["components"]["messages"]
    for channel in document()["channels"].values():
        (record,) = {records[address] for address in _addresses(channel)}
        if record is None:
            continue
        payload = messages[next(iter(channel["messages"]))]["payload"]
        assert payload["schema"] == generated_schema(record)
        assert fastavro.parse_schema(payload["schema"], named_schemas={})


def test_the_json_schema_of_a_request_tells_good_from_bad() -> None:
    """A producer without Python can check its JSON before it sends it."""
    schema = {"$ref": "#/components/schemas/LLMRequest", "components": document()["components"]}
    check = jsonschema_rs.Draft7Validator(schema)
    good = {"request_id": "r-1", "messages": [{"role": "user", "content": "x"}]}
    assert check.is_valid(good)
    assert check.is_valid(json.loads(LLMRequest.model_validate(good).model_dump_json()))
    for wrong in ({}, good | {"request_id": "a b"}, good | {"extra": 1}, good | {"kind": "poem"}):
        assert not check.is_valid(wrong), wrong


def test_the_headers_described_are_the_headers_written() -> None:
    """The header schemas name all that the envelope writes, and require nothing that it leaves out."""
    schemas = document()["components"]["schemas"]
    least = cloud_event(type="t", source="s", key="k")
    most = cloud_event(
        type="t",
        source="s",
        key="k",
        correlation_id="c",
        causation_id="d",
        sequence=1,
        expiry_time=NOON,
        tenant_id="team",
        model="m",
        state="completed",
        trace=[("traceparent", b"00-1-2-01"), ("tracestate", b"a=b")],
    )
    assert {name for name, _ in most} == set(schemas["RecordHeaders"]["properties"])
    assert [name for name, _ in least] == schemas["RecordHeaders"]["required"]
    dead_letter = schemas["DeadLetterHeaders"]
    assert {name for name, _ in dead_letter_headers(FIRST, [])} == set(dead_letter["properties"])
    redriven = redrive_headers(FIRST, most)
    assert {name for name, _ in redriven} == set(schemas["RequestHeaders"]["properties"])
    for schema, headers in (
        (schemas["RecordHeaders"], most),
        (schemas["RequestHeaders"], redriven),
        (dead_letter, dead_letter_headers(FIRST, [])),
    ):
        check = jsonschema_rs.Draft7Validator(schema)
        assert check.is_valid({name: value.decode() for name, value in headers})


def _addresses(channel: dict[str, Any]) -> list[str]:
    """A channel's topics: one for each value of a parameter that has a closed set of them."""
    addresses = [channel["address"]]
    for name, parameter in channel.get("parameters", {}).items():
        values = parameter.get("enum", [f"{{{name}}}"])
        addresses = [address.replace(f"{{{name}}}", value) for address in addresses for value in values]
    return addresses


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for part in value.values() for found in _references(part)]
    if isinstance(value, list):
        return [found for part in value for found in _references(part)]
    return []
