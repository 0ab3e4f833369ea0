"""Who may connect: addresses, host names and origins."""

import pytest
from bridge_support import make_hub

from websocket_bridge.access import Access, PublicAddressError, is_loopback
from websocket_bridge.server import BridgeServer

ACCESS = Access(host="127.0.0.1", allowed_origins=["https://sluice.example.org/", "http://tools.example.org:8080"])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST"])
def test_loopback_addresses_are_known(host: str) -> None:
    """These are reached from this machine alone."""
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "192.168.1.7", "example.org", "localhost.example.org"])  # noqa: S104
def test_a_public_address_is_refused_unless_it_is_asked_for(host: str) -> None:
    """Without authentication the bridge does not serve others; the error says what to do."""
    hub, metrics, _ = make_hub()
    with pytest.raises(PublicAddressError, match="insecure_public") as refused:
        BridgeServer(hub, metrics, host=host, port=0, allowed_origins=[])
    assert refused.value.host == host
    BridgeServer(hub, metrics, host=host, port=0, allowed_origins=[], insecure_public=True)


@pytest.mark.parametrize(
    ("origin", "host_header", "allowed"),
    [
        (None, "127.0.0.1:8080", True),
        ("http://127.0.0.1:8080", "127.0.0.1:8080", True),
        ("http://LocalHost:8080", "localhost:8080", True),
        ("https://sluice.example.org", "127.0.0.1:8080", True),
        ("http://tools.example.org:8080", "127.0.0.1:8080", True),
        ("http://127.0.0.1:9090", "127.0.0.1:8080", False),
        ("https://127.0.0.1:8080", "127.0.0.1:8080", False),
        ("http://tools.example.org", "127.0.0.1:8080", False),
        ("https://evil.example", "127.0.0.1:8080", False),
        ("null", "127.0.0.1:8080", False),
        ("", "127.0.0.1:8080", False),
    ],
)
def test_an_origin_is_the_pages_own_or_a_configured_one(origin: str | None, host_header: str, allowed: bool) -> None:
    """Scheme, name and port have to agree; a client without an Origin is no browser."""
    assert ACCESS.allows_origin(origin, host_header=host_header) is allowed


@pytest.mark.parametrize(
    ("host_header", "allowed"),
    [
        ("127.0.0.1:8080", True),
        ("[::1]:8080", True),
        ("localhost", True),
        ("sluice.example.org", True),
        ("rebound.evil.example:8080", False),
        ("localhost.evil.example", False),
        ("", False),
        ("[::1", False),
    ],
)
def test_a_host_name_of_a_stranger_is_refused(host_header: str, allowed: bool) -> None:
    """A name that was made to point here (DNS rebinding) gets nothing."""
    assert ACCESS.allows_host(host_header) is allowed
