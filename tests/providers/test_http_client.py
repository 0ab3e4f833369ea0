"""The shared HTTP client, by one provider: `contract/test_contract_network.py` holds every type to it."""

import asyncio
import ssl
from collections.abc import AsyncIterator

import pytest

from connectors.providers.base import Failed, Outcome
from connectors.providers.http_client import new_http_client
from schemas.vocabulary import FailureCategory
from tests.providers.calls import a_call, answer_of, outcome_of
from tests.providers.chat_calls import chat_provider
from tests.support.certificates import Certificates, make_certificates
from tests.support.chat_server import ChatServer, chat_server
from tests.support.connect_proxy import connect_proxy

KIND = "openai_compatible"
ELSEWHERE = "https://model.invalid"


@pytest.fixture(autouse=True)
def _no_proxies_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def server() -> AsyncIterator[ChatServer]:
    async with chat_server() as running:
        yield running


@pytest.fixture
async def secure(certificates: Certificates) -> AsyncIterator[ChatServer]:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificates.server)
    async with chat_server(tls) as running:
        yield running


async def called(server: ChatServer, *, base_url: str | None = None) -> Outcome:
    address = {} if base_url is None else {"base_url": base_url}
    provider = chat_provider(KIND, server, **address)
    try:
        return await outcome_of(provider, a_call())
    finally:
        await provider.close()


async def test_calls_at_once_have_connections_of_their_own(server: ChatServer) -> None:
    """And two providers share what is free, through one client."""
    async with new_http_client() as client:
        providers = [chat_provider(KIND, server, http_client=client) for _ in range(2)]
        await asyncio.gather(*(answer_of(provider, a_call()) for provider in providers))
        before = len(server.connections)
        for provider in providers:
            await answer_of(provider, a_call())
            await provider.close()
        assert len(server.connections) == before


async def test_a_company_s_own_authority(
    secure: ChatServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE names those who are trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    assert not isinstance(await called(secure), Failed)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.foreign_ca))
    assert isinstance(await called(secure), Failed)


async def test_a_name_must_be_that_of_the_certificate(
    secure: ChatServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same server under a name that its certificate does not have is refused."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    outcome = await called(secure, base_url=f"https://localhost:{secure.address[1]}/v1")
    assert isinstance(outcome, Failed)
    assert secure.asked == []


async def test_https_goes_through_a_tunnel(
    secure: ChatServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy sees where a call goes and nothing of it; the server's certificate is checked as without one."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    async with connect_proxy(secure.address) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert not isinstance(await called(secure), Failed)
        assert proxy.asked == [f"{secure.address[0]}:{secure.address[1]}"]
        refused = await called(secure, base_url=f"{ELSEWHERE}/v1")
    assert isinstance(refused, Failed)
    assert proxy.asked[-1] == "model.invalid:443"
    assert len(secure.asked) == 1


async def test_a_proxy_with_a_password(
    secure: ChatServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes from the proxy's address; where it is wrong the call fails, and does not show it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    async with connect_proxy(secure.address, credentials="user:right-password") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//user:right-password@"))
        assert not isinstance(await called(secure), Failed)
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//user:wrong-password@"))
        outcome = await called(secure)
    assert isinstance(outcome, Failed)
    assert outcome.problem.category is FailureCategory.CONNECTION
    assert outcome.problem.message == "the proxy refused (ProxyError)"
    assert not outcome.possibly_billed


async def test_redirects_are_not_followed(server: ChatServer) -> None:
    """Prompt and key go to nobody but the address that is configured."""
    async with chat_server() as other:
        server.status, server.headers = 307, {"location": f"{other.url}/v1/chat/completions"}
        assert isinstance(await called(server), Failed)
        assert other.asked == []
