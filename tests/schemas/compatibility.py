"""Whether readers and writers of two versions of a schema understand each other, as Apache Avro judges it."""

import json
from pathlib import Path

import avro.schema
from avro.compatibility import (
    ReaderWriterCompatibilityChecker,
    SchemaCompatibilityResult,
    SchemaCompatibilityType,
    SchemaIncompatibilityType,
)

from schemas import RECORDS
from schemas.avro_schemas import AvroSchema, generated_schema


def breaks(*, current: AvroSchema, released: AvroSchema) -> list[str]:
    """What the current schema broke, in words; empty where it broke nothing.

    The current version must read all that the released one wrote. The released one must not miss a field that it
    cannot do without: readers of other teams are not upgraded on our day. A new symbol of an enum is allowed, though
    a reader that does not know it refuses the record.
    """
    backward = _judge(reader=current, writer=released)
    forward = _judge(reader=released, writer=current)
    found = []
    if backward.compatibility is not SchemaCompatibilityType.compatible:
        found += [f"cannot read what was released: {words}" for words in _words(backward)]
    if SchemaIncompatibilityType.reader_field_missing_default_value in forward.incompatibilities:
        found += [f"a released reader needs what is gone: {words}" for words in _words(forward)]
    return found


def breaks_since_releases(folder: Path) -> dict[str, list[str]]:
    """What the current schemas broke, by the path of the released schema."""
    current = {record.__name__: generated_schema(record) for record in RECORDS}
    found = {}
    for path in sorted(folder.glob("*/*.avsc")):
        name = path.relative_to(folder).as_posix()
        if path.stem not in current:
            found[name] = ["the record is gone, and what was written with it may still be there"]
        elif broken := breaks(current=current[path.stem], released=json.loads(path.read_text(encoding="utf-8"))):
            found[name] = broken
    return found


def _judge(*, reader: AvroSchema, writer: AvroSchema) -> SchemaCompatibilityResult:
    checker = ReaderWriterCompatibilityChecker()
    return checker.get_compatibility(
        reader=avro.schema.parse(json.dumps(reader)), writer=avro.schema.parse(json.dumps(writer))
    )


def _words(result: SchemaCompatibilityResult) -> list[str]:
    places = ", ".join(sorted(result.locations))
    return [f"{message} (at {places})" for message in sorted(result.messages)]
