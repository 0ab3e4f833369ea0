"""Reaching Redis as companies run it: ACL users, TLS, client certificates, Sentinel; and errors that say why not."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from connectors.settings import RedisSettings, TlsSettings
from connectors.state import redis_store
from connectors.state.base import Limits, StateUnavailableError
from connectors.state.connect import RedisSettingsError, connect
from connectors.state.redis_store import RedisStateStore
from tests.state.every_step import every_step
from tests.state.redis_process import RedisProcess
from tests.state.tls_front import tls_front
from tests.support.certificates import KEY_PASSWORD, Certificates, make_certificates

ROOMY = Limits(max_requests=100_000, max_bytes=1024**3)
PASSWORD = "pass-w0rd!"  # noqa: S105 - of a server that lives as long as a test
CLUSTER_RIGHT = "+cluster|slots"
RIGHTS = "~{sluice:* +@read +@write +@scripting +@connection +time +info"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@asynccontextmanager
async def store_at(settings: RedisSettings, url: str) -> AsyncIterator[RedisStateStore]:
    store = RedisStateStore.from_settings(settings, SecretStr(url), namespace="test")
    try:
        yield store
    finally:
        await store.close()


def add_user(server: RedisProcess, name: str, rights: str) -> None:
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", name, "on", f">{PASSWORD}", "-@all", *rights.split())


async def test_an_acl_user_needs_the_documented_rights_and_no_more(own_redis: RedisProcess) -> None:
    """Every step works with the rights that the store's documentation names."""
    assert RIGHTS.replace("~{sluice:*", "~{<prefix>:*") in (redis_store.__doc__ or "")
    add_user(own_redis, "app", RIGHTS)
    async with store_at(RedisSettings(username="app", password=SecretStr(PASSWORD)), own_redis.url) as store:
        await every_step(store)


async def test_on_a_cluster_an_acl_user_also_needs_to_see_its_slots(own_cluster: list[RedisProcess]) -> None:
    """One more right than on a single server, as documented."""
    assert CLUSTER_RIGHT in (redis_store.__doc__ or "")
    for node in own_cluster:
        add_user(node, "app", f"{RIGHTS} {CLUSTER_RIGHT}")
        with node.client() as admin:
            admin.execute_command("ACL", "SETUSER", "default", "resetpass")
    settings = RedisSettings(mode="cluster", shards=4, username="app", password=SecretStr(PASSWORD))
    async with store_at(settings, own_cluster[0].url) as store:
        for number in range(12):
            await every_step(store, f"r{number}")


async def test_an_acl_user_of_another_prefix_reaches_nothing(own_redis: RedisProcess) -> None:
    """Its rights end at its keys, and the error says so."""
    add_user(own_redis, "app", RIGHTS.replace("sluice", "other"))
    async with store_at(RedisSettings(username="app", password=SecretStr(PASSWORD)), own_redis.url) as store:
        with pytest.raises(StateUnavailableError, match=r"(?i)no permissions|can't access"):
            await store.claim("r1", owner="w", lease_ms=1)
    settings = RedisSettings(username="app", password=SecretStr(PASSWORD), key_prefix="other")
    async with store_at(settings, own_redis.url) as store:
        await every_step(store)


async def test_user_and_password_may_stand_in_the_url(own_redis: RedisProcess) -> None:
    """Percent-encoded; those of the settings go before them."""
    add_user(own_redis, "app", RIGHTS)
    with own_redis.client() as admin:
        admin.execute_command("ACL", "SETUSER", "default", "off")
    async with store_at(RedisSettings(), f"redis://app:pass-w0rd%21@127.0.0.1:{own_redis.port}/0") as store:
        await every_step(store)
    settings = RedisSettings(username="app", password=SecretStr(PASSWORD))
    async with store_at(settings, f"redis://someone:wrong@127.0.0.1:{own_redis.port}/0") as store:
        await every_step(store, "r2")


async def test_a_wrong_password_is_named_and_never_shown(
    own_redis: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in the error, nor in its causes, nor in logs, nor where the store is printed."""
    caplog.set_level(logging.DEBUG)
    with own_redis.client() as admin:
        admin.execute_command("CONFIG", "SET", "requirepass", "right")
    settings = RedisSettings(username="default", password=SecretStr("w-r-o-n-g"))
    async with store_at(settings, f"redis://x:also-wrong@127.0.0.1:{own_redis.port}/0") as store:
        with pytest.raises(StateUnavailableError, match=r"(?i)password") as caught:
            await store.outstanding()
        shown = [repr(store), repr(store._scripts), repr(store._scripts._client), caplog.text]
    error: BaseException | None = caught.value
    while error is not None:
        shown += [repr(error), str(error)]
        error = error.__cause__ or error.__context__
    assert not any("w-r-o-n-g" in text or "also-wrong" in text for text in shown)


async def test_tls_with_an_authority_of_ones_own(own_redis: RedisProcess, certificates: Certificates) -> None:
    """rediss:// and a CA file are all it takes."""
    async with tls_front(to_port=own_redis.port, certificate=certificates.server) as port:
        settings = RedisSettings(tls=TlsSettings(ca_file=certificates.ca))
        async with store_at(settings, f"rediss://127.0.0.1:{port}/0") as store:
            await every_step(store)


@pytest.mark.parametrize("knows_another_authority", [False, True])
async def test_a_certificate_of_an_unknown_authority_is_refused(
    own_redis: RedisProcess, certificates: Certificates, *, knows_another_authority: bool
) -> None:
    """Nothing is sent to a server that cannot prove who it is."""
    ca_file = certificates.foreign_ca if knows_another_authority else None
    settings = RedisSettings(tls=TlsSettings(ca_file=ca_file))
    async with (
        tls_front(to_port=own_redis.port, certificate=certificates.server) as port,
        store_at(settings, f"rediss://127.0.0.1:{port}/0") as store,
    ):
        with pytest.raises(StateUnavailableError, match=r"(?i)certificate"):
            await store.outstanding()


async def test_a_certificate_for_another_host_is_refused_unless_told_otherwise(
    own_redis: RedisProcess, certificates: Certificates
) -> None:
    """The server's certificate is for 127.0.0.1, and it is called localhost here."""
    async with tls_front(to_port=own_redis.port, certificate=certificates.server) as port:
        url = f"rediss://localhost:{port}/0"
        async with store_at(RedisSettings(tls=TlsSettings(ca_file=certificates.ca)), url) as store:
            with pytest.raises(StateUnavailableError, match=r"(?i)hostname mismatch|certificate"):
                await store.outstanding()
        unchecked = TlsSettings(ca_file=certificates.ca, check_hostname=False)
        async with store_at(RedisSettings(tls=unchecked), url) as store:
            await every_step(store)


async def test_a_client_certificate_with_an_encrypted_key(own_redis: RedisProcess, certificates: Certificates) -> None:
    """Mutual TLS: without the certificate the server hangs up."""
    front = tls_front(to_port=own_redis.port, certificate=certificates.server, client_ca=certificates.ca)
    async with front as port:
        url = f"rediss://127.0.0.1:{port}/0"
        tls = TlsSettings(
            ca_file=certificates.ca,
            certificate_file=certificates.client,
            key_file=certificates.client_key_encrypted,
            key_password=SecretStr(KEY_PASSWORD),
        )
        async with store_at(RedisSettings(tls=tls), url) as store:
            await every_step(store)
        async with store_at(RedisSettings(tls=TlsSettings(ca_file=certificates.ca)), url) as store:
            with pytest.raises(StateUnavailableError):
                await store.outstanding()


@pytest.mark.parametrize(
    ("settings", "url", "said"),
    [
        (RedisSettings(), "redis://h/0?ssl_cert_reqs=none&socket_timeout=1", "socket_timeout, ssl_cert_reqs"),
        (RedisSettings(tls=TlsSettings(check_hostname=False)), "redis://h/0", "rediss://"),
        (RedisSettings(mode="cluster"), "redis://h/1", "one database"),
        (RedisSettings(mode="cluster"), "unix:///run/redis.sock", "no Unix socket"),
        (RedisSettings(mode="cluster", tls=TlsSettings(key_password=SecretStr("k"))), "rediss://h", "key_password"),
        (RedisSettings(mode="sentinel", sentinels=["only-a-host"]), "redis://h/0", "'only-a-host' is not host:port"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_connects(
    settings: RedisSettings, url: str, said: str
) -> None:
    """The error names the setting."""
    with pytest.raises(RedisSettingsError, match=said):
        connect(settings, SecretStr(url))


async def test_a_unix_socket(tmp_path_factory: pytest.TempPathFactory) -> None:
    """unix:// with a path, as distributions ship Redis."""
    folder = tmp_path_factory.mktemp("s")
    server = RedisProcess(folder, "--unixsocket", str(folder / "redis.sock")).start()
    try:
        async with store_at(RedisSettings(), f"unix://{folder / 'redis.sock'}") as store:
            await every_step(store)
    finally:
        server.stop()


class SentinelSetup:
    """A master, a replica and one sentinel that watches them."""

    def __init__(self, folder: Path) -> None:
        self.master = RedisProcess(folder / "master").start()
        self.replica = RedisProcess(folder / "replica", "--replicaof", "127.0.0.1", str(self.master.port)).start()
        config = (
            f"sentinel monitor essays 127.0.0.1 {self.master.port} 1\n"
            "sentinel down-after-milliseconds essays 200\n"
            "sentinel failover-timeout essays 5000\n"
        )
        # A sentinel looks for replicas as it starts, and then every ten seconds.
        self.replica.wait_until(lambda client: client.info("replication")["master_link_status"] == "up")
        self.sentinel = RedisProcess(folder / "sentinel", sentinel_config=config).start()
        self.sentinel.wait_until(lambda client: len(client.sentinel_slaves("essays")) == 1)

    def fail_over(self) -> None:
        """The master dies, and the sentinel makes the replica the new one."""
        self.master.kill()
        self.replica.wait_until(lambda client: client.info("replication")["role"] == "master")

    def stop(self) -> None:
        for server in (self.sentinel, self.replica, self.master):
            server.stop()


@pytest.fixture
def sentinel_setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelSetup]:
    setup = SentinelSetup(tmp_path_factory.mktemp("sentinel"))
    yield setup
    setup.stop()


async def test_a_store_follows_sentinel_to_the_new_master(sentinel_setup: SentinelSetup) -> None:
    """Before and after a failover, with the same store, and with a dead sentinel in the list."""
    sentinels = ["127.0.0.1:1", f"127.0.0.1:{sentinel_setup.sentinel.port}"]
    settings = RedisSettings(mode="sentinel", sentinels=sentinels, sentinel_service="essays")
    async with store_at(settings, "redis://") as store:
        await every_step(store)
        await asyncio.to_thread(sentinel_setup.fail_over)
        async with asyncio.timeout(30):
            while True:
                try:
                    await store.outstanding()
                    break
                except StateUnavailableError:
                    await asyncio.sleep(0.05)
        assert not await store.is_same_run()  # the new master may have got less than the old one had
        await every_step(store, "r2")
        with sentinel_setup.replica.client() as new_master:
            assert new_master.exists("{sluice:test:0}:request:r2")
