"""Who may connect: by the address served, the Host that was asked for, and the Origin.

The Host check is against DNS rebinding: a page of a stranger whose own name was made to point here has an Origin
equal to its Host. A name of ours is known by the settings, and an IP address or `localhost` cannot be rebound.
"""

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit


class PublicAddressError(Exception):
    """The bridge was asked to serve others than this machine, and could not tell who they are."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"bridge.host={host!r} is not a loopback address, and no key is set that tickets could be verified with: "
            "everyone who reaches the bridge could follow requests and read answers. Set bridge.tickets.hs256_key, "
            "jwks_url or jwks_file; or serve 127.0.0.1, behind a proxy that authenticates; or set "
            "bridge.insecure_public=true if the network itself keeps strangers away."
        )
        self.host = host


def is_loopback(host: str) -> bool:
    """Whether an address to serve on is reached from this machine alone. Other names are not looked up."""
    address = _ip_address(host)
    return address.is_loopback if address else host.lower() == "localhost"


class Access:
    """The rules of one deployment. `scheme` is that of the page: http, or https with TLS."""

    def __init__(self, *, host: str, allowed_origins: Sequence[str], scheme: str = "http") -> None:
        self._scheme = scheme
        self._origins = {origin.rstrip("/").lower() for origin in allowed_origins}
        self._names = {host.lower()} | {urlsplit(origin).hostname or "" for origin in self._origins}

    def allows_host(self, host_header: str) -> bool:
        try:
            name = (urlsplit(f"//{host_header}").hostname or "").lower()
        except ValueError:
            return False
        return name in self._names or name == "localhost" or _ip_address(name) is not None

    def allows_origin(self, origin: str | None, *, host_header: str) -> bool:
        """A browser always sends an Origin with a WebSocket; who sends none is no browser, and has no cookies."""
        if origin is None:
            return True
        return origin.lower() in self._origins or origin.lower() == f"{self._scheme}://{host_header.lower()}"


def _ip_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
