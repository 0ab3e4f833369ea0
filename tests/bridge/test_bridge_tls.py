"""TLS of the bridge's own port."""

import ssl
from pathlib import Path

import pytest
from bridge_support import make_hub, serving
from pydantic import ValidationError
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake

from connectors.settings import BridgeTlsSettings
from connectors.tls import TlsFileError
from tests.support.certificates import Certificates, make_certificates
from websocket_bridge.messages import SUBPROTOCOL
from websocket_bridge.server_tls import server_context


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("bridge-tls"))


async def test_with_a_certificate_the_bridge_serves_tls_alone(certificates: Certificates) -> None:
    """The page's address says so, and a client that trusts the authority gets in; client certificates as asked."""
    hub, metrics, _ = make_hub()
    tls = BridgeTlsSettings(certificate_file=certificates.server, key_file=certificates.server, ca_file=certificates.ca)
    async with serving(hub, metrics, tls=server_context(tls)) as server:
        assert server.url.startswith("https://")
        trusting = ssl.create_default_context(cafile=certificates.ca)
        url = f"wss://127.0.0.1:{server.port}/ws"
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError, InvalidHandshake)):
            await connect(url, ssl=trusting, subprotocols=[SUBPROTOCOL], proxy=None)
        trusting.load_cert_chain(certificates.client, certificates.client_key)
        origin = f"https://127.0.0.1:{server.port}"
        async with connect(url, ssl=trusting, subprotocols=[SUBPROTOCOL], origin=origin, proxy=None) as connection:
            assert "hello" in await connection.recv()


def test_files_that_cannot_be_used_are_named(certificates: Certificates, tmp_path: Path) -> None:
    """A key of another certificate, an authority that is none; and half of a pair is an error of the settings."""
    assert server_context(BridgeTlsSettings()) is None
    wrong = BridgeTlsSettings(certificate_file=certificates.client, key_file=certificates.foreign_client_key)
    with pytest.raises(TlsFileError, match="cannot be used together"):
        server_context(wrong)
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("")
    with pytest.raises(TlsFileError, match="no certificates"):
        server_context(
            BridgeTlsSettings(certificate_file=certificates.server, key_file=certificates.server, ca_file=nothing)
        )
    with pytest.raises(ValidationError):
        BridgeTlsSettings(certificate_file=certificates.server)
