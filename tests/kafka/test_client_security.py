"""The options work against a real Kafka that asks for passwords, certificates and tokens; refusals say why."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from connectors.kafka.access import KafkaAccessError, KafkaRefusedError, KafkaUnreachableError, check_access
from connectors.kafka.client import client_options
from connectors.settings import Settings
from tests.support.certificates import KEY_PASSWORD, Certificates
from tests.support.secure_kafka import (
    PLAIN_PASSWORD,
    PLAIN_USER,
    SCRAM_PASSWORD,
    SCRAM_USER,
    SecureKafka,
    missing_programs,
)
from tests.support.token_server import CLIENT_ID, CLIENT_SECRET, TokenServer, token_server

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(missing_programs()), reason=f"needs {', '.join(missing_programs())} on PATH"),
]


@pytest.fixture
async def tokens() -> AsyncIterator[TokenServer]:
    async with token_server() as server:
        yield server


class Ways:
    """Settings for each listener of the broker; a test changes what it wants to be wrong."""

    def __init__(self, kafka: SecureKafka, certificates: Certificates, tokens: TokenServer) -> None:
        self._kafka = kafka
        self._certificates = certificates
        self._tokens = tokens

    def plain(self, **changes: Any) -> Settings:
        return self._password("PLAIN", PLAIN_USER, PLAIN_PASSWORD, changes)

    def scram(self, **changes: Any) -> Settings:
        return self._password("SCRAM-SHA-512", SCRAM_USER, SCRAM_PASSWORD, changes)

    def mutual_tls(self, **tls: Any) -> Settings:
        given = {
            "ca_file": self._certificates.ca,
            "certificate_file": self._certificates.client,
            "key_file": self._certificates.client_key,
        }
        return Settings(kafka_bootstrap=self._kafka.mutual_tls, kafka={"security_protocol": "SSL", "tls": given | tls})

    def mutual_tls_with_key_password(self) -> Settings:
        return self.mutual_tls(key_file=self._certificates.client_key_encrypted, key_password=KEY_PASSWORD)

    def oauth(self, **changes: Any) -> Settings:
        given = {
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "OAUTHBEARER",
            "sasl_username": CLIENT_ID,
            "sasl_password": CLIENT_SECRET,
            "oauth_token_url": self._tokens.url,
        }
        return Settings(kafka_bootstrap=self._kafka.oauth, kafka=given | changes)

    def _password(self, mechanism: str, user: str, password: str, changes: dict[str, Any]) -> Settings:
        given = {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": mechanism,
            "sasl_username": user,
            "sasl_password": password,
            "tls": {"ca_file": self._certificates.ca},
        }
        return Settings(kafka_bootstrap=self._kafka.sasl_ssl, kafka=given | changes)


@pytest.fixture
def ways(kafka: SecureKafka, certificates: Certificates, tokens: TokenServer) -> Ways:
    return Ways(kafka, certificates, tokens)


@pytest.mark.parametrize("way", ["plain", "scram", "mutual_tls", "mutual_tls_with_key_password", "oauth"])
async def test_each_way_of_logging_in_carries_a_record(ways: Ways, way: str) -> None:
    """One dict of options serves admin client, producer and consumer, and a record goes through."""
    settings: Settings = getattr(ways, way)()
    await check_access(settings)
    options = client_options(settings)
    topic = f"secure-{way}"
    async with AsyncExitStack() as stack:
        admin = AIOKafkaAdminClient(**options)
        stack.push_async_callback(admin.close)
        await admin.start()
        await admin.create_topics([NewTopic(topic, 1, 1)])
        producer = AIOKafkaProducer(**options)
        stack.push_async_callback(producer.stop)
        await producer.start()
        await producer.send_and_wait(topic, b"value", key=way.encode())
        consumer = AIOKafkaConsumer(topic, auto_offset_reset="earliest", **options)
        stack.push_async_callback(consumer.stop)
        await consumer.start()
        async with asyncio.timeout(20):
            record = await consumer.getone()
    assert (record.key, record.value) == (way.encode(), b"value")


async def refusal(settings: Settings, kind: type[KafkaAccessError] = KafkaRefusedError) -> KafkaAccessError:
    with pytest.raises(kind) as caught:
        await check_access(settings)
    assert caught.value.broker == settings.kafka_bootstrap
    return caught.value


@pytest.mark.parametrize("way", ["plain", "scram"])
async def test_a_wrong_password_is_told(ways: Ways, way: str) -> None:
    """The message names the user, the mechanism and the settings, and not the password."""
    error = await refusal(getattr(ways, way)(sasl_password="guess"))  # noqa: S106
    assert "refused the credentials of" in error.reason
    assert "SLUICE_KAFKA__SASL_PASSWORD" in error.remedy
    assert "guess" not in str(error)


async def test_a_mechanism_that_is_not_offered_is_told(ways: Ways) -> None:
    """A slip in the mechanism is not taken for a wrong password."""
    error = await refusal(ways.plain(sasl_mechanism="SCRAM-SHA-256"))
    assert error.reason == "it does not offer SCRAM-SHA-256"


async def test_a_broker_of_an_unknown_authority_is_told(ways: Ways, certificates: Certificates) -> None:
    """We do not talk to a broker whose certificate nobody we trust has signed."""
    error = await refusal(ways.mutual_tls(ca_file=certificates.foreign_ca))
    assert "its certificate was not accepted" in error.reason
    assert "SLUICE_KAFKA__TLS__CA_FILE" in error.remedy


async def test_a_missing_client_certificate_is_told(ways: Ways) -> None:
    """A listener that wants mutual TLS and got none."""
    error = await refusal(ways.mutual_tls(certificate_file=None, key_file=None))
    assert "did not accept our certificate" in error.reason


async def test_a_client_certificate_of_an_unknown_authority_is_told(ways: Ways, certificates: Certificates) -> None:
    """A listener that wants mutual TLS and got somebody else's."""
    foreign = {"certificate_file": certificates.foreign_client, "key_file": certificates.foreign_client_key}
    error = await refusal(ways.mutual_tls(**foreign))
    assert "did not accept our certificate" in error.reason
    assert "SLUICE_KAFKA__TLS__CERTIFICATE_FILE" in error.remedy


async def test_a_wrong_client_secret_is_told(ways: Ways) -> None:
    """The identity provider refuses before Kafka is asked."""
    error = await refusal(ways.oauth(sasl_password="guess"))  # noqa: S106
    assert "HTTP 401, invalid_client" in error.reason
    assert "guess" not in str(error)


async def test_an_identity_provider_that_is_away_is_told(ways: Ways, tokens: TokenServer) -> None:
    """It may come back, so that is no refusal."""
    tokens.answer = web.Response(status=503)
    error = await refusal(ways.oauth(), KafkaUnreachableError)
    assert "HTTP 503" in error.reason
    assert "SLUICE_KAFKA__OAUTH_TOKEN_URL" in error.remedy


async def test_a_token_that_kafka_refuses_is_told(ways: Ways, tokens: TokenServer) -> None:
    """An expired token, which aiokafka itself takes for accepted; its clients then see a cluster without brokers."""
    tokens.lifetime_seconds = -60
    error = await refusal(ways.oauth())
    assert error.reason == "it refused the token"


async def test_plain_text_at_a_tls_listener_is_told(ways: Ways, kafka: SecureKafka) -> None:
    """The most frequent slip of all: the protocol is not the listener's."""
    error = await refusal(Settings(kafka_bootstrap=kafka.sasl_ssl), KafkaUnreachableError)
    assert "SLUICE_KAFKA__SECURITY_PROTOCOL=PLAINTEXT" in error.remedy


@pytest.mark.parametrize("way", ["plain", "oauth"])
async def test_a_secret_is_not_logged_at_any_level(ways: Ways, caplog: pytest.LogCaptureFixture, way: str) -> None:
    """aiokafka writes its requests to the log at DEBUG, and the password would be in one of them."""
    caplog.set_level(logging.DEBUG)
    await check_access(getattr(ways, way)())
    assert "Authenticated" in caplog.text
    assert PLAIN_PASSWORD not in caplog.text
    assert "Bearer" not in caplog.text


async def test_one_broker_that_answers_is_enough(ways: Ways) -> None:
    """Another of the bootstrap brokers may be away."""
    settings = ways.plain()
    await check_access(settings.model_copy(update={"kafka_bootstrap": f"127.0.0.1:1,{settings.kafka_bootstrap}"}))
