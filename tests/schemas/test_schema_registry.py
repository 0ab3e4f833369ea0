"""The registry codec against a real registry with Confluent's API (Apicurio), and against one that misbehaves."""

import asyncio
import base64
import copy
import io
import json
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import fastavro
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.schema_registry import RegistryCodec, RegistryConfigurationError, open_codec
from connectors.settings import Settings
from schemas import Delta, LaneTask, Record, StatusEvent
from schemas.avro_schemas import generated_schema, parse
from schemas.codec import CodecError, SchemaUnavailableError, SingleObjectCodec, UndecodableError, confluent_schema_id
from sluice.stack.ports import choose
from tests.schemas.strategies import records
from tests.support.apicurio import Apicurio, apicurio, missing_programs
from tests.support.certificates import KEY_PASSWORD, Certificates, make_certificates

registry_client = pytest.importorskip("confluent_kafka.schema_registry", reason="the extra `registry` is not installed")

DELTA = Delta(request_id="r-1", attempt=1, seq=0, text="wörd")
needs_java = pytest.mark.skipif(bool(missing_programs()), reason=f"needs {', '.join(missing_programs())} on PATH")


@pytest.fixture(scope="module")
def apicurio_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apicurio]:
    with apicurio(tmp_path_factory.mktemp("apicurio")) as running:
        yield running


@pytest.fixture
def deployment(apicurio_process: Apicurio, prefix: str) -> Settings:
    """A deployment with the real registry, and subjects that no other test has."""
    return Settings(schema_registry_url=apicurio_process.url, topic_prefix=prefix)


@pytest.fixture
async def client(apicurio_process: Apicurio) -> AsyncIterator[Any]:
    """Confluent's own client, for what others do with the registry."""
    async with registry_client.AsyncSchemaRegistryClient({"url": apicurio_process.url, "timeout": 10}) as opened:
        yield opened


def avro(schema: object) -> Any:
    return registry_client.Schema(json.dumps(schema), "AVRO")


def confluent(schema_id: int, body: bytes) -> bytes:
    return b"\x00" + schema_id.to_bytes(4, "big") + body


def body_of(schema: dict[str, Any], fields: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, parse(copy.deepcopy(schema)), fields)
    return out.getvalue()


async def test_without_a_registry_records_are_single_object_encoded() -> None:
    """The default needs no server, and says what a record in the other framing would need."""
    async with open_codec(Settings()) as codec:
        assert isinstance(codec, SingleObjectCodec)
        with pytest.raises(UndecodableError, match="SCHEMA_REGISTRY_URL"):
            await codec.decode(Delta, confluent(1, b""))


@pytest.mark.integration
@needs_java
class TestWithARealRegistry:
    """Everything here goes through Apicurio Registry, which others use with Confluent's clients."""

    @given(data=st.data())
    @settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
    async def test_every_record_of_the_topics_comes_back(self, deployment: Settings, data: st.DataObject) -> None:
        """Writer and reader share nothing but the registry; each value has the Confluent framing."""
        specs = deployment.topics.specs(["simulated"])
        async with open_codec(deployment, specs) as writer, open_codec(deployment, []) as reader:
            for record_type in dict.fromkeys(spec.record for spec in specs if spec.record is not None):
                record: Record = data.draw(records(record_type))
                value = writer.encode(record)
                assert confluent_schema_id(value) is not None
                assert await reader.decode(record_type, value) == record

    async def test_a_reader_takes_both_framings(self, deployment: Settings) -> None:
        """A deployment can change over to a registry while old records are still in its topics."""
        async with open_codec(deployment) as codec:
            assert await codec.decode(Delta, SingleObjectCodec().encode(DELTA)) == DELTA
            assert await codec.decode(Delta, codec.encode(DELTA)) == DELTA

    async def test_confluents_own_library_reads_what_we_write(self, deployment: Settings, client: Any) -> None:
        """Consumers of other teams need nothing of ours."""
        avro_serde = pytest.importorskip("confluent_kafka.schema_registry.avro")
        async with open_codec(deployment) as codec:
            value = codec.encode(DELTA)
        deserializer = await avro_serde.AsyncAvroDeserializer(client)
        assert await deserializer(value, _context(deployment)) == DELTA.model_dump()

    async def test_we_read_what_confluents_own_library_writes(self, deployment: Settings, client: Any) -> None:
        """Producers of other teams need the committed .avsc file alone."""
        avro_serde = pytest.importorskip("confluent_kafka.schema_registry.avro")
        serializer = await avro_serde.AsyncAvroSerializer(client, json.dumps(generated_schema(Delta)))
        value = await serializer(DELTA.model_dump(), _context(deployment))
        async with open_codec(deployment, []) as codec:
            assert await codec.decode(Delta, value) == DELTA

    async def test_another_version_of_a_schema_is_resolved(self, deployment: Settings, client: Any) -> None:
        """A writer with a field fewer and a field more than ours is understood through its schema."""
        other = copy.deepcopy(generated_schema(Delta))
        other["fields"] = [field for field in other["fields"] if field["name"] != "tenant_id"]
        other["fields"].append({"name": "mood", "type": "string", "default": "calm"})
        schema_id = await client.register_schema(f"{deployment.topics.deltas}-value", avro(other))
        fields = {"request_id": "r-1", "attempt": 1, "seq": 0, "text": "wörd", "supersedes_attempt": None, "mood": "x"}
        async with open_codec(deployment, []) as codec:
            assert await codec.decode(Delta, confluent(schema_id, body_of(other, fields))) == DELTA

    async def test_an_id_that_the_registry_does_not_know_is_undecodable(self, deployment: Settings) -> None:
        """Nobody will ever read such a record, so it may go to the dead letters."""
        async with open_codec(deployment, []) as codec:
            with pytest.raises(UndecodableError, match="no schema with the id 424242"):
                await codec.decode(Delta, confluent(424242, b"x"))

    async def test_a_record_of_another_type_is_undecodable(self, deployment: Settings) -> None:
        """An id that leads to another record's schema is a producer's mistake."""
        async with open_codec(deployment) as codec:
            with pytest.raises(CodecError):
                await codec.decode(StatusEvent, codec.encode(DELTA))

    async def test_a_schema_that_is_not_avro_is_undecodable(self, deployment: Settings, client: Any) -> None:
        """A registry holds JSON schemas too; none of our values has one."""
        schema = registry_client.Schema('{"$schema": "http://json-schema.org/draft-07/schema#"}', "JSON")
        schema_id = await client.register_schema(f"{deployment.topic_prefix}json-value", schema)
        async with open_codec(deployment, []) as codec:
            with pytest.raises(UndecodableError, match="is JSON, not AVRO"):
                await codec.decode(Delta, confluent(schema_id, b"{}"))

    async def test_without_leave_to_register_a_schema_has_to_be_there(self, deployment: Settings, client: Any) -> None:
        """The start fails with the subject's name, and passes once somebody has registered the committed schema."""
        specs = [spec for spec in deployment.topics.specs([]) if spec.record is Delta]
        subject = f"{deployment.topics.deltas}-value"
        for registered in (generated_schema(StatusEvent), generated_schema(Delta)):
            with pytest.raises(RegistryConfigurationError, match=r"schemas/avro/Delta\.avsc: register it") as caught:
                async with open_codec(deployment, specs, auto_register=False):
                    pass
            assert caught.value.subject == subject
            await client.register_schema(subject, avro(registered))
        async with open_codec(deployment, specs, auto_register=False) as codec:
            assert await codec.decode(Delta, codec.encode(DELTA)) == DELTA

    async def test_a_subject_that_refuses_our_schema_is_named(self, deployment: Settings, client: Any) -> None:
        """Somebody else's schema under our subject, and a rule of compatibility that ours breaks."""
        subject = f"{deployment.topics.deltas}-value"
        taken = {"type": "record", "name": "Delta", "namespace": "sluice.v1", "fields": []}
        await client.register_schema(subject, avro(taken))
        await client.set_compatibility(subject, "BACKWARD")
        with pytest.raises(RegistryConfigurationError, match="incompatible") as caught:
            async with open_codec(deployment):
                pass
        assert caught.value.subject == subject

    async def test_an_outage_is_not_taken_for_a_bad_record(
        self, deployment: Settings, apicurio_process: Apicurio
    ) -> None:
        """Away: known schemas go on, an unknown one can be tried again; back: it is read."""
        async with open_codec(deployment) as writer, open_codec(deployment, []) as reader:
            value = writer.encode(DELTA)
            apicurio_process.stop()
            try:
                assert await writer.decode(Delta, value) == DELTA
                with pytest.raises(SchemaUnavailableError, match="schema registry at http://127"):
                    await reader.decode(Delta, value)
            finally:
                apicurio_process.start()
            # This registry forgets what it held, and numbers anew.
            async with open_codec(deployment) as again:
                assert await reader.decode(Delta, again.encode(DELTA)) == DELTA

    async def test_many_records_of_one_new_writer_ask_once(self, deployment: Settings) -> None:
        """A thousand records with an id not seen before are one question to the registry, and then none."""
        async with open_codec(deployment) as writer, open_codec(deployment, []) as reader:
            asked = _count_questions(reader)
            value = writer.encode(DELTA)
            read = await asyncio.gather(*(reader.decode(Delta, value) for _ in range(1000)))
            assert read == [DELTA] * 1000
            # Eight may ask at once, before the first has its answer.
            assert 1 <= len(asked) <= 8
            asked.clear()
            assert await reader.decode(Delta, value) == DELTA
            assert asked == []

    async def test_a_record_that_was_not_announced_cannot_be_written(self, deployment: Settings) -> None:
        """A process says at its start what it writes; to forget one is noticed at the first record, with a reason."""
        async with open_codec(deployment, []) as codec:
            with pytest.raises(LookupError, match="LaneTask: open_codec was not told"):
                codec.encode(LaneTask.model_construct())


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@asynccontextmanager
async def odd_registry(answer: Any, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that answers every request as it is told to."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "body"),
    [(401, "{}"), (403, "<html>"), (404, "<html>not found</html>"), (500, "{}"), (200, "<html>"), (200, "{}")],
)
async def test_an_answer_that_is_no_verdict_is_an_outage(status: int, body: str) -> None:
    """A wrong password, a wrong path, a proxy's page: none of them makes a record bad."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body)

    async with odd_registry(answer) as url, open_codec(Settings(schema_registry_url=url), []) as codec:
        with pytest.raises(SchemaUnavailableError):
            await codec.decode(Delta, confluent(1, b"x"))


async def test_a_schema_that_makes_no_sense_is_undecodable() -> None:
    """The registry did answer, and with that no record can be read."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"schema": '{"type": "recrd"}'})

    async with odd_registry(answer) as url, open_codec(Settings(schema_registry_url=url), []) as codec:
        with pytest.raises(UndecodableError, match="id 1 cannot be used"):
            await codec.decode(Delta, confluent(1, b"x"))


async def test_credentials_and_certificates_reach_the_registry(certificates: Certificates) -> None:
    """Basic authentication and mutual TLS, with a key that has a password."""
    seen = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.json_response({"schema": json.dumps(generated_schema(Delta))})

    demanding = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.ca)
    demanding.load_cert_chain(certificates.server)
    demanding.verify_mode = ssl.CERT_REQUIRED
    async with odd_registry(answer, demanding) as url:
        login = {"username": "u", "password": "p:ü"}
        tls = {
            "ca_file": certificates.ca,
            "certificate_file": certificates.client,
            "key_file": certificates.client_key_encrypted,
            "key_password": KEY_PASSWORD,
        }
        deployment = Settings(schema_registry_url=url, registry=login | {"tls": tls})
        async with open_codec(deployment, []) as codec:
            value = confluent(7, body_of(generated_schema(Delta), DELTA.model_dump()))
            assert await codec.decode(Delta, value) == DELTA
    assert base64.b64decode(seen[0].removeprefix("Basic ")).decode() == "u:p:ü"


async def test_a_registry_that_is_away_at_the_start_is_told_without_secrets() -> None:
    """The start can be tried again; a password in the URL is not repeated."""
    (port,) = choose(1)
    with pytest.raises(SchemaUnavailableError, match=f"http://127.0.0.1:{port}/x") as caught:
        async with open_codec(Settings(schema_registry_url=f"http://u:hidden@127.0.0.1:{port}/x")):
            pass
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schema_registry_url": "ftp://u:hidden@registry"}, "SCHEMA_REGISTRY_URL"),
        ({"registry": {"username": "u", "password": "hidden"}}, "SCHEMA_REGISTRY_URL"),
        ({"registry": {"tls": {"check_hostname": False}}}, "host name"),
    ],
    ids=["not http", "two logins", "no host name check"],
)
async def test_settings_that_cannot_work_are_told_without_secrets(changes: dict[str, Any], reason: str) -> None:
    """Before anything is asked of the registry."""
    deployment = Settings(**{"schema_registry_url": "http://a:b@registry", **changes})
    with pytest.raises(RegistryConfigurationError, match=reason) as caught:
        async with open_codec(deployment):
            pass
    assert "hidden" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_a_missing_extra_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry's client is heavy and optional; who needs it reads how to get it."""
    monkeypatch.setitem(sys.modules, "confluent_kafka.schema_registry", None)
    with pytest.raises(RegistryConfigurationError, match=r"pip install 'sluice\[registry\]'"):
        async with open_codec(Settings(schema_registry_url="http://registry")):
            pass


@given(data=st.binary(max_size=60))
@settings(max_examples=200)
def test_arbitrary_bytes_raise_nothing_but_codec_errors(data: bytes) -> None:
    """Behind the mark of the Confluent framing as well as behind a known id."""

    class OneSchema:
        """A registry that knows Delta under every id."""

        async def get_schema(self, _: int) -> Any:
            return avro(generated_schema(Delta))

    async def decode_all() -> None:
        codec = RegistryCodec(OneSchema(), address="here")  # type: ignore[arg-type]
        for value in (data, b"\x00" + data, confluent(1, data)):
            try:
                assert isinstance(await codec.decode(Delta, value), Delta)
            except CodecError:
                continue

    asyncio.run(decode_all())


def _context(deployment: Settings) -> Any:
    serialization = pytest.importorskip("confluent_kafka.serialization")
    return serialization.SerializationContext(deployment.topics.deltas, serialization.MessageField.VALUE)


def _count_questions(codec: Any) -> list[int]:
    asked: list[int] = []
    ask = codec._client.get_schema

    async def counted(schema_id: int) -> Any:
        asked.append(schema_id)
        return await ask(schema_id)

    codec._client.get_schema = counted
    return asked
