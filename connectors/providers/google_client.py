"""The HTTP client that google-genai gets. It sends through the process's shared one, and closes gaps of the SDK:

- given no client, the SDK takes aiohttp wherever it is installed, and then repeats requests by itself;
- its timeouts are one number for everything, and none by default;
- it keeps the response of a stream to itself, and leaves it open until the garbage collector finds it. Here whoever
  makes a call is shown its response, and can close it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import httpx2

from connectors.providers.sdk_timeouts import sdk_timeout
from policy.catalogue import Timeouts

OnResponse = Callable[[httpx2.Response], None]

_on_response: ContextVar[OnResponse | None] = ContextVar("google_on_response", default=None)


@contextmanager
def showing_responses_to(on_response: OnResponse) -> Iterator[None]:
    """Shows the responses of requests that are sent in this block, as soon as their headers are there."""
    token = _on_response.set(on_response)
    try:
        yield
    finally:
        _on_response.reset(token)


class GoogleClient(httpx2.AsyncClient):
    """Sends through `shared`, which stays its owner's to close. Without a connection of its own."""

    def __init__(self, shared: httpx2.AsyncClient, timeouts: Timeouts) -> None:
        # The base transport refuses to send: nothing gets past `send` below.
        super().__init__(transport=httpx2.AsyncBaseTransport(), trust_env=False)
        self._shared = shared
        self._timeouts = {streamed: sdk_timeout(timeouts, streamed=streamed).as_dict() for streamed in (False, True)}

    async def send(self, request: httpx2.Request, *, stream: bool = False, **_defaults: Any) -> httpx2.Response:
        request.extensions["timeout"] = self._timeouts[stream]
        response = await self._shared.send(request, stream=stream)
        on_response = _on_response.get()
        if on_response is not None:
            try:
                on_response(response)
            except BaseException:
                await response.aclose()
                raise
        return response
