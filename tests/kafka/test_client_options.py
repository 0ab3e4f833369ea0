"""What aiokafka is given for each way of reaching Kafka. Against a real Kafka: test_client_security.py."""

import asyncio
import inspect
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from aiohttp import web
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from pydantic import SecretStr

from connectors.kafka.access import KafkaUnreachableError, check_access
from connectors.kafka.client import client_options
from connectors.kafka.oauth import ClientCredentials, TokenError
from connectors.settings import Settings
from connectors.tls import TlsFileError
from sluice.stack.ports import choose
from tests.support.certificates import KEY_PASSWORD, Certificates, make_certificates
from tests.support.token_server import CLIENT_ID, CLIENT_SECRET, TokenServer, token_server


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def tokens() -> AsyncIterator[TokenServer]:
    async with token_server() as server:
        yield server


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def settings(**kafka: Any) -> Settings:
    return Settings(kafka_bootstrap="a:9092,b:9092", kafka=kafka)


def sasl(mechanism: str, **more: Any) -> Settings:
    oauth = {"oauth_token_url": "https://id.example/token"} if mechanism == "OAUTHBEARER" else {}
    login = {"sasl_mechanism": mechanism, "sasl_username": "u", "sasl_password": "p"}
    return settings(security_protocol="SASL_SSL", **login, **oauth, **more)


def test_plain_text_needs_no_more_than_an_address() -> None:
    """Nothing is given that was not asked for: aiokafka's own defaults hold."""
    assert client_options(settings(), client_id="sluice-lane") == {
        "bootstrap_servers": "a:9092,b:9092",
        "client_id": "sluice-lane",
        "security_protocol": "PLAINTEXT",
    }


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_password_is_given_in_clear_to_the_client_alone(mechanism: str) -> None:
    """The settings mask it, and aiokafka needs it as it is."""
    options = client_options(sasl(mechanism))
    names = ("sasl_mechanism", "sasl_plain_username", "sasl_plain_password")
    assert [options[name] for name in names] == [mechanism, "u", "p"]
    assert options["ssl_context"].verify_mode is ssl.CERT_REQUIRED


def test_a_token_provider_takes_the_place_of_a_password(certificates: Certificates) -> None:
    """With OAUTHBEARER the client secret goes to the identity provider, never to Kafka."""
    options = client_options(sasl("OAUTHBEARER", tls={"ca_file": certificates.ca}))
    assert isinstance(options["sasl_oauth_token_provider"], ClientCredentials)
    assert "sasl_plain_password" not in options


def test_a_private_authority_is_the_only_one_trusted(certificates: Certificates) -> None:
    """Who names an authority does not want every other in the world accepted as well."""
    context = client_options(settings(security_protocol="SSL", tls={"ca_file": certificates.ca}))["ssl_context"]
    assert [dict(entry[0] for entry in ca["subject"])["commonName"] for ca in context.get_ca_certs()] == ["ca"]
    assert context.check_hostname


def test_the_host_name_check_can_be_switched_off(certificates: Certificates) -> None:
    """The certificate is still verified then."""
    tls = {"ca_file": certificates.ca, "check_hostname": False}
    context = client_options(settings(security_protocol="SSL", tls=tls))["ssl_context"]
    assert (context.check_hostname, context.verify_mode) == (False, ssl.CERT_REQUIRED)


@pytest.mark.parametrize(
    ("key", "password", "problem"),
    [
        ("client_key", None, None),
        ("client_key_encrypted", KEY_PASSWORD, None),
        ("client_key_encrypted", "wrong", "key_password"),
        ("client_key_encrypted", None, "key_password"),
        ("foreign_client_key", None, "KEY_VALUES_MISMATCH"),
    ],
)
def test_a_client_certificate_is_read_or_its_problem_is_told(
    certificates: Certificates, key: str, password: str | None, problem: str | None
) -> None:
    """A wrong password or key is named with the file, and nobody is asked on a terminal."""
    tls = {
        "ca_file": certificates.ca,
        "certificate_file": certificates.client,
        "key_file": getattr(certificates, key),
        "key_password": password,
    }
    if problem is None:
        assert client_options(settings(security_protocol="SSL", tls=tls))["ssl_context"]
        return
    with pytest.raises(TlsFileError, match=problem) as caught:
        client_options(settings(security_protocol="SSL", tls=tls))
    assert caught.value.file == certificates.client
    assert "wrong" not in str(caught.value)


def test_an_authority_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    """The message names the file, not a number of OpenSSL's."""
    (tmp_path / "ca.pem").write_text("not a certificate")
    with pytest.raises(TlsFileError, match=r"ca\.pem: holds no certificates in PEM"):
        client_options(settings(security_protocol="SSL", tls={"ca_file": tmp_path / "ca.pem"}))


@pytest.mark.parametrize("client", [AIOKafkaProducer, AIOKafkaConsumer, AIOKafkaAdminClient])
def test_each_client_of_aiokafka_takes_all_options(client: type) -> None:
    """One dict serves producer, consumer and admin client."""
    every_option: set[str] = set()
    for mechanism in ("PLAIN", "OAUTHBEARER"):
        every_option |= client_options(sasl(mechanism)).keys()
    assert every_option <= inspect.signature(client).parameters.keys()


def provider(tokens: TokenServer, **changes: Any) -> ClientCredentials:
    given: dict[str, Any] = {
        "token_url": tokens.url,
        "client_id": CLIENT_ID,
        "client_secret": SecretStr(CLIENT_SECRET),
    }
    return ClientCredentials(**given | changes)


async def test_a_token_is_kept_until_four_fifths_of_its_life(tokens: TokenServer) -> None:
    """Connections share a token, and the next is there before it ends."""
    clock = Clock()
    tokens.lifetime_seconds = 100
    credentials = provider(tokens, scope="kafka", clock=clock)
    first = await credentials.token()
    clock.seconds += 79
    assert await credentials.token() == first
    assert tokens.requests == [{"grant_type": "client_credentials", "scope": "kafka"}]
    clock.seconds += 2
    assert await credentials.token() != first
    assert len(tokens.requests) == 2


async def test_many_connections_at_once_fetch_one_token(tokens: TokenServer) -> None:
    """A restart of the brokers is no storm on the identity provider."""
    credentials = provider(tokens)
    assert len({await token for token in asyncio.as_completed([credentials.token() for _ in range(20)])}) == 1
    assert len(tokens.requests) == 1


async def test_a_token_without_a_lifetime_is_not_kept(tokens: TokenServer) -> None:
    """Nothing is known of it, so each connection fetches its own."""
    tokens.answer = web.json_response({"access_token": "opaque"})
    credentials = provider(tokens)
    assert [await credentials.token(), await credentials.token()] == ["opaque", "opaque"]
    assert len(tokens.requests) == 2


async def test_a_valid_token_outlives_an_outage_of_the_identity_provider(tokens: TokenServer) -> None:
    """A failed refresh costs nothing while the token lasts; after that it is an error."""
    clock = Clock()
    tokens.lifetime_seconds = 100
    credentials = provider(tokens, clock=clock)
    first = await credentials.token()
    tokens.answer = web.Response(status=503)
    clock.seconds += 90
    assert await credentials.token() == first
    clock.seconds += 20
    with pytest.raises(TokenError, match="HTTP 503"):
        await credentials.token()


async def test_one_provider_serves_several_event_loops(tokens: TokenServer) -> None:
    """Client options may be used from more than one loop."""
    credentials = provider(tokens)
    found: list[str] = []
    threads = [Thread(target=lambda: found.append(asyncio.run(credentials.token()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    own = await credentials.token()
    for thread in threads:
        await asyncio.to_thread(thread.join, 10)
    assert len(found) == 3
    assert await credentials.token() in {*found, own}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            web.json_response({"error": "invalid_scope", "error_description": CLIENT_SECRET}, status=400),
            "HTTP 400, inv",
        ),
        (web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}), "HTTP 302"),
        (web.json_response({}), "no access_token"),
        (web.json_response({"access_token": "x", "expires_in": "soon"}), "expires_in"),
        (web.Response(text="<html>"), "no access_token"),
        (web.Response(text="x" * 200_000), "too long"),
    ],
    ids=["refused", "redirect", "empty", "odd lifetime", "html", "endless"],
)
async def test_an_odd_answer_is_told_without_secrets(tokens: TokenServer, answer: web.Response, reason: str) -> None:
    """The error names the endpoint and the reason, and repeats neither what was sent nor what came."""
    tokens.answer = answer
    with pytest.raises(TokenError, match=reason) as caught:
        await provider(tokens).token()
    assert caught.value.endpoint == tokens.url
    assert CLIENT_SECRET not in str(caught.value)


async def test_wrong_client_credentials_are_told_without_secrets(tokens: TokenServer) -> None:
    """The identity provider's own word for it is passed on."""
    with pytest.raises(TokenError, match="HTTP 401, invalid_client") as caught:
        await provider(tokens, client_secret=SecretStr("guess")).token()
    assert "guess" not in str(caught.value)


async def test_an_endpoint_that_is_away_is_an_error_that_aiokafka_survives() -> None:
    """aiokafka's background tasks end on anything but its own errors, and its client with them."""
    (port,) = choose(1)
    credentials = ClientCredentials(
        token_url=f"http://user:hidden@127.0.0.1:{port}/token?key=hidden",
        client_id="u",
        client_secret=SecretStr("hidden"),
    )
    with pytest.raises(KafkaError, match=f"no token from http://127.0.0.1:{port}/token: ") as caught:
        await credentials.token()
    assert "hidden" not in str(caught.value)


async def test_an_endpoint_that_never_answers_is_given_up() -> None:
    """The wait is bounded."""
    release = asyncio.Event()

    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        credentials = ClientCredentials(
            token_url=f"http://127.0.0.1:{port}/",
            client_id="u",
            client_secret=SecretStr("s"),
            timeout_seconds=0.2,
        )
        with pytest.raises(TokenError, match=r"no answer within 0\.2 s"):
            await credentials.token()
    finally:
        release.set()
        server.close()


async def test_nobody_listening_is_told_with_the_address_and_what_to_check() -> None:
    """aiokafka says "Unable to bootstrap"; this says why."""
    (port,) = choose(1)
    with pytest.raises(KafkaUnreachableError, match="Check KAFKA_BOOTSTRAP") as caught:
        await check_access(Settings(kafka_bootstrap=f"127.0.0.1:{port}"))
    assert caught.value.broker == f"127.0.0.1:{port}"
    assert "Connect" in caught.value.reason
