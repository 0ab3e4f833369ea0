"""Bytes to records and back, without I/O.

Three framings, told apart by the first byte (sources: Avro specification, "Single-object encoding"; Confluent
documentation, "Wire format"):

    C3 01 | 8-byte fingerprint | Avro body     single-object, the default
    00    | 4-byte schema id   | Avro body     Confluent, with a schema registry (see connectors.schema_registry)
    {     | ...                                JSON, where the topic accepts it
"""

import io
import json
import struct
from typing import Protocol, TypeVar

import fastavro
from pydantic import ValidationError

from schemas.avro_schemas import AvroSchema, fingerprint, generated_schema, known_writers, parsed_schema
from schemas.base import Record

R = TypeVar("R", bound=Record)

SINGLE_OBJECT_MARK = b"\xc3\x01"
CONFLUENT_MARK = b"\x00"
_CONFLUENT_HEADER = struct.Struct(">bI")
_SINGLE_OBJECT_HEADER_BYTES = 10
_MAX_FIELD_CHARACTERS = 200
"""A path may hold a name that the sender made up, as long as the record itself; it goes into headers and logs."""


class CodecError(Exception):
    """Bytes could not become a record.

    CodecError              .field: dotted path of the field at fault, where one is known
    |- UndecodableError     the framing or the Avro or JSON syntax is wrong
    '- InvalidRecordError   it could be read, and breaks a rule of the contract; .fields holds what was read
    """

    def __init__(self, reason: str, *, field: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field


class UndecodableError(CodecError):
    """The bytes are not what their framing says."""


class InvalidRecordError(CodecError):
    """The bytes were read, and the values break a rule."""

    def __init__(self, reason: str, *, field: str | None, fields: dict[str, object]) -> None:
        super().__init__(reason, field=field)
        self.fields = fields


class SchemaUnavailableError(Exception):
    """The schema that a record was written with could not be had now. The record may be good: try again later.

    Not a `CodecError`, so that nobody takes an outage of the registry for a bad record.
    """


class Codec(Protocol):
    """What stages and clients need of a codec."""

    def encode(self, record: Record) -> bytes: ...

    async def decode(self, record_type: type[R], data: bytes) -> R:
        """Raises `CodecError` for the bytes, `SchemaUnavailableError` for the circumstances."""
        ...


class SingleObjectCodec:
    """Avro single-object encoding: needs no registry, for readers carry the writers' schemas."""

    def encode(self, record: Record) -> bytes:
        return single_object_header(type(record)) + encode_body(record)

    async def decode(self, record_type: type[R], data: bytes) -> R:
        return decode_single_object(record_type, data)


def single_object_header(record_type: type[Record]) -> bytes:
    """`C3 01` and the fingerprint: 10 bytes."""
    return SINGLE_OBJECT_MARK + fingerprint_of(record_type)


_fingerprints: dict[type[Record], bytes] = {}


def fingerprint_of(record_type: type[Record]) -> bytes:
    """The fingerprint of a record model's current schema, computed once."""
    found = _fingerprints.get(record_type)
    if found is None:
        found = _fingerprints[record_type] = fingerprint(generated_schema(record_type))
    return found


def encode_body(record: Record) -> bytes:
    """The Avro body alone, in the current schema."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, parsed_schema(type(record)), record.model_dump())
    return out.getvalue()


def decode_body(record_type: type[R], body: bytes, writer: AvroSchema) -> R:
    """Reads an Avro body that `writer` describes, and resolves it to the current schema."""
    stream = io.BytesIO(body)
    reader = parsed_schema(record_type)
    try:
        # Without schema resolution a read costs half: fastavro is given a reader schema only where it differs.
        fields = fastavro.schemaless_reader(stream, writer, None if writer is reader else reader)
    except Exception as error:
        raise UndecodableError(f"not Avro of {record_type.__name__}: {error or type(error).__name__}") from error
    if stream.read(1):
        raise UndecodableError(f"bytes are left over after the Avro body of {record_type.__name__}")
    if not isinstance(fields, dict):
        raise UndecodableError(f"the Avro body holds no record, but {type(fields).__name__}")
    return _validated(record_type, fields)


def decode_single_object(record_type: type[R], data: bytes) -> R:
    """Reads single-object encoding."""
    if data[:2] != SINGLE_OBJECT_MARK or len(data) < _SINGLE_OBJECT_HEADER_BYTES:
        raise UndecodableError(_framing_problem(data))
    mark = data[2:_SINGLE_OBJECT_HEADER_BYTES]
    writer = known_writers(record_type).get(mark)
    if writer is None:
        raise UndecodableError(
            f"the schema fingerprint {mark.hex()} is not one of {record_type.__name__} that this version knows"
        )
    return decode_body(record_type, data[_SINGLE_OBJECT_HEADER_BYTES:], writer)


def decode_json(record_type: type[R], data: bytes) -> R:
    """Reads a JSON object with the field names of the contract."""
    try:
        return record_type.model_validate_json(data)
    except ValidationError as error:
        if any(detail["type"] == "json_invalid" for detail in error.errors(include_url=False)):
            raise UndecodableError(f"not JSON: {_first(error)[1]}") from error
        raise invalid_record(error, _json_fields(data)) from error


def is_json(data: bytes) -> bool:
    """Whether a value is meant as JSON, by its first character that is not white space."""
    return data[:64].lstrip()[:1] == b"{"


def confluent_schema_id(data: bytes) -> int | None:
    """The registry's schema id in the Confluent wire format, or None for another framing."""
    if data[:1] != CONFLUENT_MARK or len(data) < _CONFLUENT_HEADER.size:
        return None
    return int(_CONFLUENT_HEADER.unpack_from(data)[1])


def confluent_header(schema_id: int) -> bytes:
    """The 5 bytes in front of a body in the Confluent wire format."""
    return _CONFLUENT_HEADER.pack(0, schema_id)


def confluent_body(data: bytes) -> bytes:
    """What follows them."""
    return data[_CONFLUENT_HEADER.size :]


def invalid_record(error: ValidationError, fields: dict[str, object]) -> InvalidRecordError:
    """The first finding of pydantic, as field and reason."""
    field, reason = _first(error)
    return InvalidRecordError(reason, field=field, fields=fields)


def _validated(record_type: type[R], fields: dict[str, object]) -> R:
    try:
        return record_type.model_validate(fields)
    except ValidationError as error:
        raise invalid_record(error, fields) from error


def _first(error: ValidationError) -> tuple[str | None, str]:
    detail = error.errors(include_url=False, include_input=False, include_context=False)[0]
    reason = str(detail["msg"]).removeprefix("Value error, ")
    field = ".".join(str(part) for part in detail["loc"])[:_MAX_FIELD_CHARACTERS]
    if not field and ": " in reason:
        field, reason = reason.split(": ", 1)
    return field or None, reason


def _json_fields(data: bytes) -> dict[str, object]:
    fields = json.loads(data)
    return fields if isinstance(fields, dict) else {}


def _framing_problem(data: bytes) -> str:
    if not data:
        return "the value is empty"
    if data[:2] == SINGLE_OBJECT_MARK:
        return f"cut off within the header of single-object encoding, after {len(data)} bytes"
    if data[:1] == CONFLUENT_MARK:
        return "Confluent wire format, and no schema registry is configured (SCHEMA_REGISTRY_URL)"
    return f"neither Avro single-object encoding (C3 01) nor JSON: it begins with {data[:2].hex(' ')}"
