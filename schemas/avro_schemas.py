"""Avro schemas generated from the record models, and the store of all that readers must still understand.

Layout on disk: `schemas/avro/<Record>.avsc` is the schema as it is now; `schemas/avro/released/<version>/` keeps
what each release wrote, so that records written by it can be read for as long as they may exist.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any, cast

import fastavro
import fastavro.schema
import py_avro_schema

from schemas.base import Record

NAMESPACE = "sluice.v1"
AVRO_FOLDER = Path(__file__).parent / "avro"
RELEASED_FOLDER = AVRO_FOLDER / "released"

AvroSchema = dict[str, Any]

_OPTIONS = py_avro_schema.Option.MILLISECONDS


@cache
def generated_schema(record_type: type[Record]) -> AvroSchema:
    """The Avro schema of a record model, as JSON objects."""
    text = py_avro_schema.generate(record_type, namespace=NAMESPACE, options=_OPTIONS)
    schema = json.loads(text)
    if not isinstance(schema, dict):
        raise TypeError(f"{record_type.__name__}: a record schema was expected, not {type(schema).__name__}")
    _drop_enum_defaults(schema)
    return schema


def _drop_enum_defaults(schema: Any) -> None:
    """Unset what a reader takes for a symbol it does not know, except where that is `unknown`.

    py_avro_schema sets it to the first symbol: a reader that meets a newer word would read it as `public` or as
    `queued`, and say nothing. Without a default it is an error.
    """
    if isinstance(schema, dict):
        if schema.get("type") == "enum" and schema.get("default") != "unknown":
            schema.pop("default", None)
        for part in schema.values():
            _drop_enum_defaults(part)
    elif isinstance(schema, list):
        for part in schema:
            _drop_enum_defaults(part)


@cache
def parsed_schema(record_type: type[Record]) -> AvroSchema:
    """The same in fastavro's own form, ready for reading and writing."""
    return parse(generated_schema(record_type))


def parse(schema: AvroSchema) -> AvroSchema:
    """Any Avro record schema in fastavro's own form."""
    return cast("AvroSchema", fastavro.parse_schema(schema, named_schemas={}))


def fingerprint(schema: AvroSchema) -> bytes:
    """CRC-64-AVRO of the schema's canonical form: 8 bytes, little-endian, as single-object encoding has it."""
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    # fastavro's text is the little-endian form already: `"null"` gives 8a8f25cce724dd63.
    return bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))


@cache
def known_writers(record_type: type[Record]) -> dict[bytes, AvroSchema]:
    """Fingerprint to parsed schema: the current one and every released one of this record."""
    writers = {}
    for path in sorted(RELEASED_FOLDER.glob(f"*/{record_type.__name__}.avsc")):
        schema = json.loads(path.read_text())
        writers[fingerprint(schema)] = parse(schema)
    writers[fingerprint(generated_schema(record_type))] = parsed_schema(record_type)
    return writers


def as_text(schema: AvroSchema) -> str:
    """The schema as it is committed."""
    return json.dumps(schema, indent=2) + "\n"
