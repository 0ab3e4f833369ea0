"""Fingerprints are those of the Avro specification, so that readers in other languages know our schemas."""

import json

import pytest

from schemas import Delta
from schemas.avro_schemas import fingerprint, parse
from schemas.codec import fingerprint_of, single_object_header

# A schema with all that the canonical form leaves out or rewrites: documentation, defaults, logical types, short names.
CALL = json.loads("""
{"type": "record", "name": "Call", "namespace": "sluice.v1", "doc": "x", "fields": [
  {"name": "state", "default": "done", "type":
    {"type": "enum", "name": "State", "symbols": ["queued", "done"], "default": "queued"}},
  {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}], "default": null, "doc": "w"},
  {"name": "tags", "type": {"type": "map", "values": "string"}, "default": {}},
  {"name": "again", "type": ["null", "State"], "default": null}
]}
""")


@pytest.mark.parametrize(
    ("schema", "rabin"),
    [
        # The first is the specification's; the others are what Apache Avro 1.12.0 for Java computes
        # (SchemaNormalization.parsingFingerprint64, unsigned).
        ("null", 7195948357588979594),
        ("boolean", 11476012395585140580),
        ("long", 15011871142588980663),
        ("double", 10265170025261012350),
        ("string", 10304597078529344455),
        ({"type": "array", "items": "long"}, 6059251950232166001),
        (CALL, 10341920646525377968),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else str(value),
)
def test_a_fingerprint_is_the_little_endian_rabin_of_the_canonical_form(schema: object, rabin: int) -> None:
    """CRC-64-AVRO agrees with the specification and with the Java implementation, byte order included."""
    assert fingerprint(schema) == rabin.to_bytes(8, "little")


def test_a_fingerprint_does_not_change_by_parsing() -> None:
    """fastavro's own form of a schema has the fingerprint of the schema it was made from."""
    assert fingerprint(parse(CALL)) == fingerprint(CALL)


def test_the_header_is_the_mark_and_the_fingerprint() -> None:
    """A single-object header has ten bytes: C3 01 and the fingerprint of the record's schema."""
    assert single_object_header(Delta) == b"\xc3\x01" + fingerprint_of(Delta)
    assert len(single_object_header(Delta)) == 10
