"""Asks the user's own Kafka and Redis whether they can be used, with the TLS, SASL and Sentinel of the settings.

Imported where they are used, as in `probes.py`: the clients take half a second, and mostly nobody needs them.
"""

import asyncio

from pydantic import ValidationError

from connectors.settings import Settings
from sluice.stack.probes import NotReady

_TIMEOUT_SECONDS = 10.0


def ask_kafka(bootstrap: str) -> None:
    """Log in and ask for metadata. Call it outside of an event loop."""
    from connectors.kafka.access import KafkaAccessError, check_access  # noqa: PLC0415
    from connectors.tls import TlsFileError  # noqa: PLC0415

    settings = _settings(kafka_bootstrap=bootstrap)
    try:
        asyncio.run(check_access(settings, timeout_seconds=_TIMEOUT_SECONDS))
    except KafkaAccessError as error:
        raise NotReady(f"{error.broker}: {error.reason}. {error.remedy.rstrip('.')}") from error
    except (TlsFileError, ValueError, OSError) as error:
        raise NotReady(_reason(error)) from error


def ask_redis(url: str) -> None:
    """Log in and PING. Call it outside of an event loop."""
    from redis import RedisError  # noqa: PLC0415

    settings = _settings(redis_url=url)
    try:
        asyncio.run(_ping(settings))
    except TimeoutError:
        raise NotReady(f"no reply within {_TIMEOUT_SECONDS:.0f} s") from None
    except (RedisError, ValueError, OSError) as error:
        raise NotReady(_reason(error)) from error


async def _ping(settings: Settings) -> None:
    from connectors.state.connect import connect, disconnect  # noqa: PLC0415

    client = connect(settings.redis, settings.redis_url)
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            await client.ping()
    finally:
        await disconnect(client)


def _settings(**addresses: str) -> Settings:
    try:
        return Settings.model_validate(addresses)
    except ValidationError as error:
        # Never the input: it may be a password.
        first = error.errors(include_url=False, include_input=False)[0]
        name = "__".join(str(part) for part in first["loc"]).upper()
        raise NotReady(f"setting SLUICE_{name}: {first['msg'].removeprefix('Value error, ')}") from None
    except OSError as error:
        raise NotReady(_reason(error)) from error


def _reason(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__
