"""The way to a provider is the process's: its authorities, its proxies, its connections. For every type, by its SDK."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bench.canned_server import CannedAnswers
from connectors.providers import http_client as shared_client
from connectors.providers.base import Answered, Outcome
from connectors.providers.http_client import new_http_client
from schemas.vocabulary import FailureCategory as F
from tests.providers.calls import a_call, answer_of, failure_of, outcome_of
from tests.providers.contract.adapters import ADAPTERS, Adapter
from tests.providers.contract.trial import provider_at
from tests.support.certificates import Certificates, make_certificates
from tests.support.connect_proxy import connect_proxy
from tests.support.fault_cases import CASES
from tests.support.fault_server import FaultServer

FOR_EACH_TYPE = pytest.mark.parametrize(
    "adapter", [pytest.param(adapter, id=adapter.type) for adapter in ADAPTERS if adapter.wire]
)
BOTH_WAYS = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


@pytest.fixture(autouse=True)
def _no_proxies_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@asynccontextmanager
async def secure_server(adapter: Adapter, certificate: Path) -> AsyncIterator[FaultServer]:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    async with FaultServer(CASES, adapter.wire, tls=tls) as server:
        yield server


async def called(adapter: Adapter, server: FaultServer, *, streamed: bool) -> Outcome:
    """By a provider that is built now, as a worker does that starts in this environment."""
    provider = provider_at(server.root, adapter)
    try:
        return await outcome_of(provider, a_call(model="good", stream=streamed))
    finally:
        await provider.close()


@FOR_EACH_TYPE
async def test_an_authority_that_nobody_knows(adapter: Adapter, certificates: Certificates) -> None:
    """Nothing is sent to a server for which nobody vouches."""
    async with secure_server(adapter, certificates.server) as server:
        provider = provider_at(server.root, adapter)
        failed = await failure_of(provider, a_call(model="good"))
        await provider.close()
    assert (failed.problem.category, failed.possibly_billed, server.exchanges) == (F.CONNECTION, False, [])


@FOR_EACH_TYPE
@BOTH_WAYS
async def test_a_company_s_own_authority(
    adapter: Adapter, streamed: bool, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE names those who are trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    async with secure_server(adapter, certificates.server) as server:
        assert isinstance(await called(adapter, server, streamed=streamed), Answered)


@FOR_EACH_TYPE
@BOTH_WAYS
async def test_a_proxy(
    adapter: Adapter, streamed: bool, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTPS_PROXY is asked for a tunnel; an address in NO_PROXY is not."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    async with secure_server(adapter, certificates.server) as server, connect_proxy(server.address) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert isinstance(await called(adapter, server, streamed=streamed), Answered)
        assert proxy.asked == [f"{server.address[0]}:{server.address[1]}"]
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert isinstance(await called(adapter, server, streamed=streamed), Answered)
    assert len(proxy.asked) == 1
    assert len(server.exchanges) == 2


class KeepingServer:
    """Keeps connections open, and counts them."""

    def __init__(self, adapter: Adapter) -> None:
        assert adapter.wire
        self._answers = CannedAnswers(adapter.wire)
        self._connections: set[asyncio.Task[None]] = set()
        self.connections_made = 0

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections_made += 1
        self._connections.add(asyncio.create_task(self._answers.serve(reader, writer)))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Its address, until the block ends."""
        server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"
        server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


@FOR_EACH_TYPE
async def test_a_connection_is_used_again(adapter: Adapter) -> None:
    """Call after call, whole and streamed by turns, takes one connection."""
    server = KeepingServer(adapter)
    async with server.running() as root:
        provider = provider_at(root, adapter)
        for number in range(6):
            await answer_of(provider, a_call(model="m", stream=number % 2 == 0))
        await provider.close()
    assert server.connections_made == 1


@FOR_EACH_TYPE
async def test_connections_are_bounded(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two providers share a process's client: calls that find all connections taken wait for one."""
    monkeypatch.setattr(shared_client, "MAX_CONNECTIONS", 3)
    server = KeepingServer(adapter)
    async with server.running() as root, new_http_client() as client:
        providers = [provider_at(root, adapter, http_client=client) for _ in range(2)]
        await asyncio.gather(
            *(answer_of(providers[number % 2], a_call(model="m", stream=number % 3 == 0)) for number in range(20))
        )
        for provider in providers:
            await provider.close()
    assert 1 < server.connections_made <= 3
