"""Records in the Confluent wire format, with their schemas in a registry; and the choice of a deployment's codec.

What can go wrong, and who has to do what about it:

RegistryConfigurationError         at the start: somebody has to change something; .subject where one is at fault
schemas.codec.SchemaUnavailableError   the registry cannot be asked now: try again, the record may be good
schemas.codec.UndecodableError     the bytes, or a schema id that the registry does not know
"""

import asyncio
import json
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from connectors.settings import Settings
from schemas import RECORDS
from schemas.avro_schemas import AvroSchema, fingerprint, generated_schema, known_writers, parse, parsed_schema
from schemas.base import Record
from schemas.codec import (
    CONFLUENT_MARK,
    Codec,
    R,
    SchemaUnavailableError,
    SingleObjectCodec,
    UndecodableError,
    confluent_body,
    confluent_header,
    confluent_schema_id,
    decode_body,
    decode_single_object,
    encode_body,
    fingerprint_of,
)
from schemas.topics import TopicSpec

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import AsyncSchemaRegistryClient

_REQUEST_TIMEOUT_SECONDS = 5
_RETRIES = 2
_LONGEST_RETRY_WAIT_MS = 1_000
_LOOKUPS_AT_ONCE = 8
_REMEMBERED_WRITERS = 512
# The registry's own error codes, in the Confluent documentation under "Errors".
_NO_SUCH_SUBJECT, _NO_SUCH_SCHEMA = 40401, 40403
_NO_SUCH_ID = _NO_SUCH_SCHEMA


class RegistryConfigurationError(Exception):
    """The registry cannot be used as it is configured. `.subject` says where the schema of one topic is at fault."""

    def __init__(self, reason: str, *, subject: str | None = None) -> None:
        super().__init__(f"schema registry: {reason}")
        self.reason = reason
        self.subject = subject


@asynccontextmanager
async def open_codec(
    settings: Settings, writes: Iterable[TopicSpec] | None = None, *, auto_register: bool = True
) -> AsyncIterator[Codec]:
    """The codec of this deployment: single-object encoding, or a registry's where SCHEMA_REGISTRY_URL is set.

    `writes` are the topics that this process writes to; without it, all but the lanes. Their schemas are registered,
    or only looked up without `auto_register`. A process that only reads gives an empty list.
    Raises `RegistryConfigurationError` and `SchemaUnavailableError`.
    """
    for record in RECORDS:
        # At the start: made at first use, they cost the first requests some 80 ms.
        fingerprint_of(record)
        known_writers(record)
    if settings.schema_registry_url is None:
        yield SingleObjectCodec()
        return
    client = _client(settings)
    try:
        codec = RegistryCodec(client, address=_without_user(settings.schema_registry_url))
        await codec.start(settings.topics.specs([]) if writes is None else writes, auto_register=auto_register)
        yield codec
    finally:
        await client.aclose()


class RegistryCodec:
    """Writes the Confluent wire format; reads that and single-object encoding."""

    def __init__(self, client: "AsyncSchemaRegistryClient", *, address: str) -> None:
        self._client = client
        self._address = address
        self._headers: dict[type[Record], bytes] = {}
        self._writers: OrderedDict[tuple[type[Record], int], AvroSchema] = OrderedDict()
        self._lookups = asyncio.Semaphore(_LOOKUPS_AT_ONCE)

    async def start(self, writes: Iterable[TopicSpec], *, auto_register: bool) -> None:
        """Gets the id of each record type's schema, under the subject `<topic>-value` of each topic."""
        for spec in writes:
            if spec.record is None:
                continue
            schema_id = await self._own_id(f"{spec.name}-value", spec.record, register=auto_register)
            # A registry gives the same schema the same id under every subject; where it does not, any is as good.
            self._headers.setdefault(spec.record, confluent_header(schema_id))
            self._remember((spec.record, schema_id), parsed_schema(spec.record))

    def encode(self, record: Record) -> bytes:
        header = self._headers.get(type(record))
        if header is None:
            raise LookupError(f"{type(record).__name__}: open_codec was not told of a topic that this is written to")
        return header + encode_body(record)

    async def decode(self, record_type: type[R], data: bytes) -> R:
        if data[:1] != CONFLUENT_MARK:
            return decode_single_object(record_type, data)
        schema_id = confluent_schema_id(data)
        if schema_id is None:
            raise UndecodableError(f"cut off within the header of the Confluent wire format, after {len(data)} bytes")
        writer = self._writers.get((record_type, schema_id)) or await self._look_up(record_type, schema_id)
        return decode_body(record_type, confluent_body(data), writer)

    async def _look_up(self, record_type: type[Record], schema_id: int) -> AvroSchema:
        async with self._lookups:
            # Another record of the same writer may have asked in the meantime.
            found = self._writers.get((record_type, schema_id))
            if found is not None:
                return found
            schema = _parsed(await self._schema_text(schema_id), schema_id)
        # Where it is one of ours, ours is taken: reading without resolution costs half.
        return self._remember((record_type, schema_id), known_writers(record_type).get(fingerprint(schema), schema))

    async def _schema_text(self, schema_id: int) -> str:
        from confluent_kafka.schema_registry.error import SchemaRegistryError  # noqa: PLC0415 - an extra

        try:
            schema = await self._client.get_schema(schema_id)
        except SchemaRegistryError as error:
            if error.error_code == _NO_SUCH_ID:
                raise UndecodableError(f"the schema registry knows no schema with the id {schema_id}") from error
            raise self._unavailable(error) from error
        except Exception as error:  # Whatever kept us from an answer, the record is not to blame.
            raise self._unavailable(error) from error
        if not schema.schema_str:
            raise SchemaUnavailableError(f"schema registry at {self._address}: it answered without a schema")
        if schema.schema_type not in (None, "AVRO"):
            raise UndecodableError(f"the schema with the id {schema_id} is {schema.schema_type}, not AVRO")
        return schema.schema_str

    async def _own_id(self, subject: str, record_type: type[Record], *, register: bool) -> int:
        from confluent_kafka.schema_registry import Schema  # noqa: PLC0415 - an extra
        from confluent_kafka.schema_registry.error import SchemaRegistryError  # noqa: PLC0415 - an extra

        schema = Schema(json.dumps(generated_schema(record_type)), "AVRO")
        try:
            if register:
                return await self._client.register_schema(subject, schema)
            return cast("int", (await self._client.lookup_schema(subject, schema)).schema_id)
        except SchemaRegistryError as error:
            reason = _subject_problem(error, subject, record_type)
            if reason is not None:
                raise RegistryConfigurationError(reason, subject=subject) from error
            raise self._unavailable(error) from error
        except Exception as error:  # As above: no answer is no verdict.
            raise self._unavailable(error) from error

    def _remember(self, key: tuple[type[Record], int], schema: AvroSchema) -> AvroSchema:
        self._writers[key] = schema
        if len(self._writers) > _REMEMBERED_WRITERS:
            self._writers.popitem(last=False)
        return schema

    def _unavailable(self, error: Exception) -> SchemaUnavailableError:
        return SchemaUnavailableError(f"schema registry at {self._address}: {error or type(error).__name__}")


def _parsed(text: str, schema_id: int) -> AvroSchema:
    try:
        return parse(json.loads(text))
    except Exception as error:
        raise UndecodableError(f"the schema with the id {schema_id} cannot be used: {error}") from error


def _subject_problem(error: Any, subject: str, record_type: type[Record]) -> str | None:
    name = record_type.__name__
    if error.http_status_code == 409:
        return f"{subject} refuses schemas/avro/{name}.avsc as incompatible: {error.error_message}"
    if error.error_code in (_NO_SUCH_SUBJECT, _NO_SUCH_SCHEMA):
        return f"{subject} has no schema as in schemas/avro/{name}.avsc: register it, or let Sluice do it"
    return None


def _client(settings: Settings) -> "AsyncSchemaRegistryClient":
    try:
        from confluent_kafka.schema_registry import AsyncSchemaRegistryClient  # noqa: PLC0415 - an extra
    except ImportError as error:
        message = "SCHEMA_REGISTRY_URL is set and its client is not installed: pip install 'sluice[registry]'"
        raise RegistryConfigurationError(message) from error
    options = _client_options(settings)
    try:
        return AsyncSchemaRegistryClient(options)
    except (ValueError, OSError) as error:
        # Not chained and not quoted: the client's message repeats the URL, which may hold a password.
        reason = "SCHEMA_REGISTRY_URL or the SLUICE_REGISTRY__ settings cannot be used"
        if isinstance(error, ssl.SSLError):
            reason = "a file of SLUICE_REGISTRY__TLS cannot be used"
        raise RegistryConfigurationError(f"{reason} ({type(error).__name__})") from None


def _client_options(settings: Settings) -> dict[str, Any]:
    registry, tls = settings.registry, settings.registry.tls
    if not tls.check_hostname:
        raise RegistryConfigurationError("its client cannot leave out the check of the host name")
    options: dict[str, Any] = {
        "url": settings.schema_registry_url,
        "timeout": _REQUEST_TIMEOUT_SECONDS,
        "max.retries": _RETRIES,
        "retries.max.wait.ms": _LONGEST_RETRY_WAIT_MS,
        "ssl.ca.location": str(tls.ca_file) if tls.ca_file else _system_authorities(),
    }
    if registry.username is not None:
        password = registry.password.get_secret_value() if registry.password else ""
        options["basic.auth.user.info"] = f"{registry.username}:{password}"
    if tls.certificate_file is not None:
        options |= {
            "ssl.certificate.location": str(tls.certificate_file),
            "ssl.key.location": str(tls.key_file),
            # Also where there is none: OpenSSL asks on the terminal for a password that it is not given.
            "ssl.key.password": tls.key_password.get_secret_value() if tls.key_password else "",
        }
    return options


def _system_authorities() -> str | None:
    """Those of the system, as everywhere else; left to itself the client takes certifi's."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.capath


def _without_user(url: str) -> str:
    addresses = (urlsplit(part.strip()) for part in url.split(","))
    return ", ".join(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() for parts in addresses)
