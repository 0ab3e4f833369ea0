"""What Apache Avro's own library writes with the committed schemas, we read."""

import io
import json
from datetime import UTC, datetime
from typing import Any

import avro.io
import avro.schema
import pytest

from schemas import LLMRequest
from schemas.avro_schemas import AVRO_FOLDER
from schemas.codec import decode_single_object, encode_body, single_object_header
from schemas.request import Message, Parameters, RoutingConstraints
from schemas.vocabulary import Kind, Priority, Role, Sensitivity

COMMITTED = (AVRO_FOLDER / "LLMRequest.avsc").read_text(encoding="utf-8")
DEADLINE = datetime(2026, 11, 21, 12, 0, 0, 123000, UTC)


@pytest.fixture
def written() -> dict[str, Any]:
    """The fields that a producer in another language has to name: Avro writers know no defaults."""
    fields = {field["name"]: field.get("default") for field in json.loads(COMMITTED)["fields"]}
    return fields | {
        "request_id": "r-1",
        "messages": [{"role": "user", "content": "Was ist eine Schleuse? 🌊"}],
        "parameters": fields["parameters"] | {"temperature": 0.25, "stop": ["\n"]},
        "constraints": fields["constraints"] | {"sensitivity": "critical", "allowed_providers": ["simulated"]},
        "priority": "low",
        "deadline_at": DEADLINE,
        "metadata": {"origin": "java"},
    }


EXPECTED = LLMRequest(
    request_id="r-1",
    kind=Kind.CHAT,
    messages=[Message(role=Role.USER, content="Was ist eine Schleuse? 🌊")],
    parameters=Parameters(temperature=0.25, stop=["\n"]),
    constraints=RoutingConstraints(sensitivity=Sensitivity.CRITICAL, allowed_providers=["simulated"]),
    priority=Priority.LOW,
    deadline_at=DEADLINE,
    metadata={"origin": "java"},
)


def test_a_request_written_by_apache_avro_is_read(written: dict[str, Any]) -> None:
    """A producer needs the .avsc file, an Avro library and ten bytes of header, and nothing of ours."""
    out = io.BytesIO()
    avro.io.DatumWriter(avro.schema.parse(COMMITTED)).write(written, avro.io.BinaryEncoder(out))
    framed = b"\xc3\x01" + crc_64_avro(canonical_form(COMMITTED)).to_bytes(8, "little") + out.getvalue()
    assert decode_single_object(LLMRequest, framed) == EXPECTED


def test_apache_avro_reads_what_we_write(written: dict[str, Any]) -> None:
    """And the other way: the body we write is the body that Apache Avro understands, field by field."""
    reader = avro.io.DatumReader(avro.schema.parse(COMMITTED))
    fields = reader.read(avro.io.BinaryDecoder(io.BytesIO(encode_body(EXPECTED))))
    assert fields == written


def test_the_header_is_the_one_that_others_compute() -> None:
    """Two ways to the fingerprint, of which one shares no code with ours, end in the same bytes."""
    expected = crc_64_avro(canonical_form(COMMITTED)).to_bytes(8, "little")
    assert single_object_header(LLMRequest) == b"\xc3\x01" + expected


def canonical_form(schema: str) -> str:
    """Parsing canonical form by Apache Avro, mended: avro 1.12 leaves {"type":"long"} where a logical type stood."""
    return str(avro.schema.parse(schema).canonical_form).replace('{"type":"long"}', '"long"')


def crc_64_avro(text: str) -> int:
    """The algorithm as the Avro specification prints it, in "Schema Fingerprints"."""
    empty = 0xC15D213AA4D7A795
    table = []
    for index in range(256):
        value = index
        for _ in range(8):
            value = (value >> 1) ^ (empty & -(value & 1) & (2**64 - 1))
        table.append(value)
    result = empty
    for byte in text.encode():
        result = (result >> 8) ^ table[(result ^ byte) & 0xFF]
    return result
