"""Builds the Redis client that the settings describe: one server, Sentinel or Cluster, with or without TLS."""

import ssl
from typing import Any

from pydantic import SecretStr
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from connectors.settings import RedisSettings, TlsSettings

Client = Redis | RedisCluster
Options = dict[str, Any]

_URL_PARTS = {"host", "port", "db", "username", "password", "path", "connection_class"}
_CLUSTER_RETRIES = 3


class RedisSettingsError(ValueError):
    """Settings that contradict each other, or that the client library cannot follow."""


def connect(settings: RedisSettings, url: SecretStr) -> Client:
    """A client that connects on its first call. User and password of the settings go before those of the URL.

    A connection that breaks is replaced, and what was sent on it is sent once more: only for calls that allow it.
    Waiting for a reply has no limit of its own: `asyncio.timeout` around a call costs less, and bounds all of it.
    """
    parts = _parse(settings, url)
    if settings.mode == "cluster":
        return _cluster(settings, parts)
    if settings.mode == "sentinel":
        return _sentinel(settings, parts)
    address = {"unix_socket_path": parts["path"]} if "path" in parts else _address(parts)
    return Redis(**address, db=parts.get("db", 0), retry=_retry_once(), **_options(settings, parts))


async def disconnect(client: Client) -> None:
    """Closes all connections, those to the sentinels as well."""
    await client.aclose()
    if isinstance(client, Redis) and isinstance(client.connection_pool, SentinelConnectionPool):
        for sentinel in client.connection_pool.sentinel_manager.sentinels:
            await sentinel.aclose()


def _cluster(settings: RedisSettings, parts: Options) -> RedisCluster:
    if parts.get("db", 0) != 0 or "path" in parts:
        raise RedisSettingsError("a Redis Cluster has one database, and no Unix socket: use redis://host:port")
    if settings.tls.key_password is not None:
        raise RedisSettingsError("redis-py's cluster client reads no encrypted key: leave redis.tls.key_password out")
    retry = Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.2), _CLUSTER_RETRIES)
    # Where a slot has moved is learnt from the reply that says so. By default every fifth such reply closes all
    # connections, under the calls of others.
    return RedisCluster(**_address(parts), retry=retry, reinitialize_steps=0, **_options(settings, parts))


def _sentinel(settings: RedisSettings, parts: Options) -> Redis:
    """Sentinels are asked over TLS where the URL says so for the server; the URL's host is not used."""
    options = _options(settings, parts)
    # One that hangs must leave time to ask the others.
    share_seconds = settings.timeout_seconds / (len(settings.sentinels) + 1)
    sentinels = Sentinel(  # type: ignore[no-untyped-call]  # redis-py has left it untyped
        [_host_and_port(sentinel) for sentinel in settings.sentinels],
        sentinel_kwargs={
            **options,
            "username": None,
            "password": _revealed(settings.sentinel_password),
            "socket_timeout": share_seconds,
            "socket_connect_timeout": share_seconds,
            "retry": Retry(NoBackoff(), 0),
        },
    )
    master: Redis = sentinels.master_for(
        settings.sentinel_service, db=parts.get("db", 0), retry=_retry_once(), **options
    )
    return master


def _parse(settings: RedisSettings, url: SecretStr) -> Options:
    parts: Options = dict(parse_url(url.get_secret_value()))
    unknown = sorted(parts.keys() - _URL_PARTS)
    if unknown:
        raise RedisSettingsError(f"options in the Redis URL are not read ({', '.join(unknown)}): use redis settings")
    if settings.tls != TlsSettings() and not _is_tls(parts):
        raise RedisSettingsError("redis.tls is set, and the Redis URL asks for a connection without TLS: use rediss://")
    return parts


def _options(settings: RedisSettings, parts: Options) -> Options:
    """What all three kinds of clients take."""
    options: Options = {
        "username": settings.username or parts.get("username"),
        "password": _revealed(settings.password) or parts.get("password"),
        "socket_timeout": None,
        "socket_connect_timeout": settings.timeout_seconds,
        "socket_keepalive": True,
        "max_connections": settings.max_connections,
        "protocol": 2,  # scripts need nothing of RESP3, and a user then needs no right to HELLO
    }
    if _is_tls(parts):
        options |= _tls_options(settings.tls)
    return options


def _tls_options(tls: TlsSettings) -> Options:
    options: Options = {
        "ssl": True,
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": tls.check_hostname,
        "ssl_min_version": ssl.TLSVersion.TLSv1_2,
        "ssl_ca_certs": _text(tls.ca_file),
        "ssl_certfile": _text(tls.certificate_file),
        "ssl_keyfile": _text(tls.key_file),
    }
    if tls.key_password is not None:
        options["ssl_password"] = tls.key_password.get_secret_value()
    return options


def _is_tls(parts: Options) -> bool:
    return parts.get("connection_class") is SSLConnection


def _address(parts: Options) -> Options:
    return {"host": parts.get("host", "localhost"), "port": parts.get("port", 6379)}


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise RedisSettingsError(f"redis.sentinels: {address!r} is not host:port")
    return host.strip("[]"), int(port)


def _retry_once() -> Retry:
    return Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None


def _text(path: object) -> str | None:
    return None if path is None else str(path)
