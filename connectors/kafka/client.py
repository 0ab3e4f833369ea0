"""The options of every Kafka client of a process, from the settings."""

import logging
import ssl
from typing import Any

from connectors.kafka.oauth import ClientCredentials
from connectors.settings import KafkaSettings, Settings
from connectors.tls import tls_context

DEFAULT_CLIENT_ID = "sluice"


def client_options(settings: Settings, *, client_id: str = DEFAULT_CLIENT_ID) -> dict[str, Any]:
    """Keyword arguments that aiokafka's producer, consumer and admin client all take.

    Raises `connectors.tls.TlsFileError` for a certificate that cannot be read. Needs no running event loop.
    """
    kafka = settings.kafka
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap,
        "client_id": client_id,
        "security_protocol": kafka.security_protocol,
    }
    if kafka.security_protocol.endswith("SSL"):
        options["ssl_context"] = tls_context(kafka.tls)
    if kafka.sasl_mechanism is not None:
        # At DEBUG it writes out each request, and the password is in one of them.
        logging.getLogger("aiokafka.conn").setLevel(logging.INFO)
        options |= _sasl_options(kafka)
    return options


def _sasl_options(kafka: KafkaSettings) -> dict[str, Any]:
    if kafka.sasl_username is None or kafka.sasl_password is None:
        raise ValueError("KafkaSettings checks that SASL has a user name and a password")
    if kafka.sasl_mechanism == "OAUTHBEARER":
        return {"sasl_mechanism": kafka.sasl_mechanism, "sasl_oauth_token_provider": _token_provider(kafka)}
    return {
        "sasl_mechanism": kafka.sasl_mechanism,
        "sasl_plain_username": kafka.sasl_username,
        "sasl_plain_password": kafka.sasl_password.get_secret_value(),
    }


def _token_provider(kafka: KafkaSettings) -> ClientCredentials:
    if kafka.oauth_token_url is None or kafka.sasl_username is None or kafka.sasl_password is None:
        raise ValueError("KafkaSettings checks that OAUTHBEARER has its endpoint and credentials")
    return ClientCredentials(
        token_url=kafka.oauth_token_url,
        client_id=kafka.sasl_username,
        client_secret=kafka.sasl_password,
        scope=kafka.oauth_scope,
        tls=_identity_provider_context(kafka),
    )


def _identity_provider_context(kafka: KafkaSettings) -> ssl.SSLContext:
    """The identity provider may have a public certificate, or one of the company's authority that Kafka's has."""
    context = ssl.create_default_context()
    if kafka.tls.ca_file is not None:
        context.load_verify_locations(kafka.tls.ca_file)
    return context
