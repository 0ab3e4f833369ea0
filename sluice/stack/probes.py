"""Whether Kafka and Redis really answer: one metadata request, one PING.

Both clients are imported where they are used: they take half a second, and `sluice --help` does without.
"""

import asyncio
import logging
from collections.abc import Callable

_TIMEOUT_SECONDS = 10.0

Probe = Callable[[str], object]
"""Asks the server at an address, and raises `NotReady` when it does not answer as it should."""


class NotReady(Exception):  # noqa: N818 - reads as what it says
    """The server does not answer as it should; the message says how."""


def kafka_metadata(bootstrap: str) -> None:
    """Ask for the cluster's metadata. Call it outside of an event loop."""
    from aiokafka.errors import KafkaConnectionError, KafkaError  # noqa: PLC0415

    # Whoever set up logging sees aiokafka's complaints; a bare terminal gets our one line instead.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    try:
        brokers = asyncio.run(_count_brokers(bootstrap))
    except TimeoutError:
        raise NotReady(f"no metadata within {_TIMEOUT_SECONDS:.0f} s") from None
    except KafkaConnectionError as error:
        raise NotReady("it accepts no connection") from error
    except (KafkaError, OSError, ValueError) as error:
        raise NotReady(_reason(error)) from error
    if brokers == 0:
        raise NotReady("the cluster has no broker yet")


async def _count_brokers(bootstrap: str) -> int:
    from aiokafka.admin import AIOKafkaAdminClient  # noqa: PLC0415

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, client_id="sluice-probe")
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            await admin.start()
            return len((await admin.describe_cluster())["brokers"])
    finally:
        await admin.close()


def redis_ping(url: str) -> None:
    """PING the server."""
    import redis  # noqa: PLC0415

    try:
        client = redis.Redis.from_url(url, socket_connect_timeout=_TIMEOUT_SECONDS, socket_timeout=_TIMEOUT_SECONDS)
    except ValueError as error:
        raise NotReady(str(error)) from error
    try:
        client.ping()
    except redis.RedisError as error:
        raise NotReady(_reason(error)) from error
    finally:
        client.close()


def _reason(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__
