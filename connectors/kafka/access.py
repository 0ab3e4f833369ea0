"""Says why Kafka cannot be used. aiokafka logs the reason, and raises "Unable to bootstrap" without it.

KafkaAccessError             .broker, .reason, .remedy
|- KafkaUnreachableError     nobody answers there, or not as a Kafka broker; it may pass
'- KafkaRefusedError         the broker, or our check of it, said no; it stays until somebody changes something
"""

import asyncio
import ssl
from typing import Any

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import KafkaError, SaslAuthenticationFailed, UnsupportedSaslMechanismError
from aiokafka.protocol.metadata import MetadataRequest

from connectors.kafka.client import client_options
from connectors.kafka.oauth import TokenError
from connectors.settings import KafkaSettings, Settings

_PREFIX = "SLUICE_KAFKA__"


class KafkaAccessError(Exception):
    """Kafka cannot be used with these settings."""

    def __init__(self, *, broker: str, reason: str, remedy: str) -> None:
        super().__init__(f"Kafka at {broker}: {reason}. {remedy}")
        self.broker = broker
        self.reason = reason
        self.remedy = remedy


class KafkaUnreachableError(KafkaAccessError):
    """Nobody answers there, or not as a Kafka broker."""


class KafkaRefusedError(KafkaAccessError):
    """Credentials or certificates do not fit."""


async def check_access(settings: Settings, *, timeout_seconds: float = 10.0) -> None:
    """Logs in to one of the bootstrap brokers and asks it for metadata. Raises `KafkaAccessError`."""
    options = client_options(settings)
    problems: list[KafkaAccessError] = []
    for host, port, _ in collect_hosts(options.pop("bootstrap_servers"), randomize=False):
        try:
            async with asyncio.timeout(timeout_seconds):
                brokers = await _log_in(host, port, options)
        except (OSError, KafkaError, TimeoutError) as error:
            problems.append(_explained(f"{host}:{port}", error, settings.kafka))
        else:
            if brokers:
                return
            problems.append(_without_brokers(f"{host}:{port}", settings.kafka))
    refused = [problem for problem in problems if isinstance(problem, KafkaRefusedError)]
    raise (refused or problems)[0]


async def _log_in(host: str, port: int, options: dict[str, Any]) -> int:
    """How many brokers the one at this address knows, itself among them."""
    connection = await create_conn(host, port, **options)
    try:
        metadata = await connection.send(MetadataRequest([]))
    finally:
        connection.close()
    return len(metadata.brokers)


def _without_brokers(broker: str, kafka: KafkaSettings) -> KafkaAccessError:
    if kafka.sasl_mechanism == "OAUTHBEARER":
        # aiokafka passes over the broker's word on the token, and the next request is answered with nothing.
        return KafkaRefusedError(
            broker=broker, reason="it refused the token", remedy="Check the token's audience, scope and lifetime."
        )
    return KafkaUnreachableError(
        broker=broker, reason="its cluster has no broker yet", remedy="Wait until it has started."
    )


def _explained(broker: str, error: Exception, kafka: KafkaSettings) -> KafkaAccessError:
    for cause in _with_causes(error):
        refused = _refused(cause, kafka)
        if refused is not None:
            reason, remedy = refused
            return KafkaRefusedError(broker=broker, reason=reason, remedy=remedy)
        if isinstance(cause, TokenError):
            kind = KafkaRefusedError if cause.refused else KafkaUnreachableError
            remedy = f"Check {_PREFIX}OAUTH_TOKEN_URL and the client's credentials."
            return kind(broker=broker, reason=cause.args[0], remedy=remedy)
    if isinstance(error, TimeoutError):
        reason = "no answer in time"
    elif isinstance(error, KafkaError):
        reason = f"the connection was closed before it could be used ({error})"
    else:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return KafkaUnreachableError(broker=broker, reason=reason, remedy=_unreachable_remedy(error, kafka))


def _unreachable_remedy(error: Exception, kafka: KafkaSettings) -> str:
    if isinstance(error, KafkaError | TimeoutError):
        return f"Does {_PREFIX}SECURITY_PROTOCOL={kafka.security_protocol} fit the listener?"
    return "Check KAFKA_BOOTSTRAP, and that a broker listens there."


def _refused(error: BaseException, kafka: KafkaSettings) -> tuple[str, str] | None:
    """Reason and remedy, where it was said no."""
    if isinstance(error, SaslAuthenticationFailed):
        return (
            f"it refused the credentials of {kafka.sasl_username} ({kafka.sasl_mechanism})",
            f"Check {_PREFIX}SASL_USERNAME and {_PREFIX}SASL_PASSWORD.",
        )
    if isinstance(error, UnsupportedSaslMechanismError):
        return f"it does not offer {kafka.sasl_mechanism}", f"Check {_PREFIX}SASL_MECHANISM."
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate was not accepted: {error.verify_message}",
            f"Check {_PREFIX}TLS__CA_FILE, and that the certificate names the host in KAFKA_BOOTSTRAP.",
        )
    if isinstance(error, ssl.SSLError) and "CERTIFICATE" in (error.reason or ""):
        return (
            f"it did not accept our certificate ({error.reason})",
            f"Check {_PREFIX}TLS__CERTIFICATE_FILE and {_PREFIX}TLS__KEY_FILE.",
        )
    return None


def _with_causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    while error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__ or error
    return found
