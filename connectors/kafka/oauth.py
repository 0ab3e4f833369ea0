"""Tokens for SASL OAUTHBEARER: OAuth 2.0 client credentials (RFC 6749, section 4.4), fetched when needed."""

import asyncio
import base64
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakKeyDictionary

import aiohttp
import structlog
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError
from pydantic import SecretStr

log = structlog.get_logger(__name__)

_REFUSALS = (400, 401, 403)
_LARGEST_ANSWER_BYTES = 64 * 1024
# As Kafka's own clients do (sasl.login.refresh.window.factor).
_REFRESH_AFTER = 0.8


class TokenError(KafkaConnectionError):  # type: ignore[misc]  # aiokafka has no types
    """No token could be had. `.endpoint` says from where, `.reason` why; neither holds a secret.

    `.refused`: the endpoint said no, and will until somebody changes something.

    It is an error of aiokafka's, because any other would end aiokafka's background tasks, and with them the client.
    """

    def __init__(self, reason: str, *, endpoint: str, refused: bool = False) -> None:
        super().__init__(f"no token from {endpoint}: {reason}")
        self.reason = reason
        self.endpoint = endpoint
        self.refused = refused


@dataclass(frozen=True, kw_only=True, slots=True)
class _Token:
    value: str
    refresh_at: float
    expires_at: float


class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """Keeps one token, and fetches the next when four fifths of its life are over.

    Serves clients in several event loops at once, one lock for each.
    """

    def __init__(
        self,
        *,
        token_url: str,
        client_id: str,
        client_secret: SecretStr,
        scope: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = _without_user(token_url)
        self._client_id = client_id
        self._client_secret = client_secret
        self._scope = scope
        self._tls = tls
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._token: _Token | None = None
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    async def token(self) -> str:
        """A token that is valid now. Raises `TokenError`."""
        async with self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            kept = self._token
            if kept is not None and self._clock() < kept.refresh_at:
                return kept.value
            try:
                self._token = await self._fetch()
            except TokenError as error:
                if kept is None or self._clock() >= kept.expires_at:
                    raise
                log.warning("token_refresh_failed", error=str(error))
                return kept.value
            return self._token.value

    async def _fetch(self) -> _Token:
        asked_at = self._clock()
        try:
            status, body = await self._post()
        except TimeoutError as error:
            raise self._error(f"no answer within {self._timeout_seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._error(str(error) or type(error).__name__) from error
        answer = _json_object(body)
        if status != 200:
            raise self._error(f"HTTP {status}{_oauth_error(answer)}", refused=status in _REFUSALS)
        value, lifetime_seconds = answer.get("access_token"), answer.get("expires_in", 0)
        if not isinstance(value, str) or not value:
            raise self._error("the answer has no access_token")
        if not isinstance(lifetime_seconds, int | float):
            raise self._error("expires_in is not a number")
        # Without expires_in nothing is known of its life: it serves this connection alone.
        return _Token(
            value=value,
            refresh_at=asked_at + lifetime_seconds * _REFRESH_AFTER,
            expires_at=asked_at + lifetime_seconds,
        )

    async def _post(self) -> tuple[int, bytes]:
        form = {"grant_type": "client_credentials"} | ({"scope": self._scope} if self._scope else {})
        # A session for each fetch: fetches are far apart, and it belongs to no event loop for longer than that.
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._timeout_seconds)) as session,
            session.post(
                self._url,
                data=form,
                headers={"Authorization": self._authorization()},
                ssl=self._tls or True,
                proxy=_proxy(self._url),
                allow_redirects=False,
            ) as response,
        ):
            body = b""
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > _LARGEST_ANSWER_BYTES:
                    raise self._error("the answer is too long")
            return response.status, body

    def _authorization(self) -> str:
        # RFC 6749, section 2.3.1: both are form-encoded before they are joined.
        identity = f"{quote_plus(self._client_id)}:{quote_plus(self._client_secret.get_secret_value())}"
        return "Basic " + base64.b64encode(identity.encode()).decode()

    def _error(self, reason: str, *, refused: bool = False) -> TokenError:
        return TokenError(reason, endpoint=self._url.partition("?")[0], refused=refused)


def _without_user(url: str) -> str:
    """Credentials in the address are not for us: ours are in the settings, and errors show the address."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _proxy(url: str) -> str | None:
    """What HTTPS_PROXY, HTTP_PROXY and NO_PROXY say. aiohttp's own way would add what is in a .netrc file."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _oauth_error(answer: dict[str, Any]) -> str:
    """The error code of RFC 6749, section 5.2. Its description is left out: nobody knows what it quotes."""
    code = answer.get("error")
    return f", {code[:80]}" if isinstance(code, str) and code.isprintable() else ""
