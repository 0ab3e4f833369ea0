"""The HTTP client that SDK-based providers share: one pool of connections a process, with a bound on everything.

Proxies and certificate authorities come from the environment (HTTPS_PROXY, NO_PROXY; SSL_CERT_FILE, SSL_CERT_DIR), as
usual; without one, those are trusted whom the system trusts.
"""

from collections.abc import AsyncIterator
from typing import cast

import httpx2

MAX_CONNECTIONS = 2000
"""As many as a lane may have calls at once, so that no call waits for a connection."""
MAX_KEPT_ALIVE = 200
KEEP_ALIVE_SECONDS = 30.0
MAX_RESPONSE_BYTES = 64 * 1024 * 1024
"""On the wire. A stream spends some 300 bytes on a token: room for 200,000 of them."""


class ResponseTooLargeError(httpx2.RemoteProtocolError):
    """A response went on beyond `MAX_RESPONSE_BYTES`."""


def new_http_client() -> httpx2.AsyncClient:
    """A client as every provider may use it. Who makes it closes it.

    Redirects are not followed: they would carry prompt and key to an address that nobody configured.
    """
    return httpx2.AsyncClient(
        limits=httpx2.Limits(
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_KEPT_ALIVE,
            keepalive_expiry=KEEP_ALIVE_SECONDS,
        ),
        follow_redirects=False,
        event_hooks={"response": [_bound_the_body]},
    )


async def _bound_the_body(response: httpx2.Response) -> None:
    response.stream = _BoundedStream(cast("httpx2.AsyncByteStream", response.stream), MAX_RESPONSE_BYTES)


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, limit_bytes: int) -> None:
        self._stream = stream
        self._limit_bytes = limit_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received_bytes = 0
        async for part in self._stream:
            received_bytes += len(part)
            if received_bytes > self._limit_bytes:
                raise ResponseTooLargeError(f"the response has more than {self._limit_bytes:,} bytes")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()
