"""Tickets: short-lived JWTs that say who a client is, made by somebody else and verified here.

An algorithm is taken only with a key that is meant for it: HS256 with the shared secret, RS256 with a public key of the
key set. So nobody can pass a public key off as a secret (RFC 8725, section 2.1).
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import structlog
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from schemas.base import Identifier
from websocket_bridge.messages import Scope
from websocket_bridge.viewer import Viewer

LEEWAY_SECONDS = 5
MAX_KEY_SET_BYTES = 256 * 1024
FETCH_TIMEOUT_SECONDS = 5
SHORTEST_FETCH_GAP_SECONDS = 30.0
"""An unknown key id has the key set fetched again, but not more often than this: anybody can make up key ids."""
FAILED_FETCH_GAP_SECONDS = 3.0
KEYS_FRESH_SECONDS = 600.0
"""After so long known keys are fetched again as well: one that was withdrawn must not count for ever."""

_SCOPES = (Scope.OPERATOR, Scope.TENANT, Scope.USER)
"""Widest first."""

log = structlog.get_logger(__name__)

FetchKeys = Callable[[], Awaitable[dict[str, Any]]]


class TicketError(Exception):
    """A ticket that does not count. `.reason` is for the client, and repeats nothing of the ticket."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TicketsUnavailableError(Exception):
    """The key set cannot be had at the moment: nobody knows whether the ticket is good."""


class _Claims(BaseModel):
    model_config = ConfigDict(extra="ignore")

    exp: float
    scope: str
    user_id: Identifier | None = Field(default=None, validation_alias=AliasChoices("sub"))
    tenant_id: Identifier | None = None


class KeySet:
    """Public keys by their id, fetched when they are needed."""

    def __init__(self, fetch: FetchKeys, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._tried_at = self._fetched_at = float("-inf")
        self._has_failed = False
        self._lock = asyncio.Lock()

    async def key(self, key_id: str | None) -> jwt.PyJWK:
        """Raises `TicketError`, or `TicketsUnavailableError` where a key is unknown and the set cannot be fetched."""
        if key_id is None:
            raise TicketError("its header names no key (kid)")
        if self._is_wanted(key_id):
            async with self._lock:
                if self._is_wanted(key_id):
                    await self._fetch_again()
        found = self._keys.get(key_id)
        if found is None:
            raise TicketsUnavailableError if self._has_failed else TicketError("its key (kid) is not in the key set")
        return found

    def _is_wanted(self, key_id: str) -> bool:
        """Whether the set should be fetched for this key, and may be."""
        now = self._clock()
        gap_seconds = FAILED_FETCH_GAP_SECONDS if self._has_failed else SHORTEST_FETCH_GAP_SECONDS
        is_stale = now - self._fetched_at >= KEYS_FRESH_SECONDS
        return (is_stale or key_id not in self._keys) and now - self._tried_at >= gap_seconds

    async def _fetch_again(self) -> None:
        self._tried_at = self._clock()
        self._has_failed = True
        try:
            keys = jwt.PyJWKSet.from_dict(await self._fetch()).keys
        except (OSError, ValueError, TimeoutError, aiohttp.ClientError, jwt.PyJWTError) as error:
            log.warning("bridge_key_set_unavailable", reason=f"{type(error).__name__}: {error}")
            return
        self._fetched_at, self._has_failed = self._tried_at, False
        self._keys = {key.key_id: key for key in keys if key.key_id and key.algorithm_name == "RS256"}


class Tickets:
    """Verifies tickets. At least one of `secret` and `keys` is there."""

    def __init__(
        self,
        *,
        secret: SecretStr | None = None,
        keys: KeySet | None = None,
        issuer: str | None = None,
        audience: str | None = None,
        max_seconds: float = 3600,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._secret = secret
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._max_seconds = max_seconds
        self._now = now

    async def verify(self, ticket: str) -> Viewer:
        """Whom the ticket is of. Raises `TicketError`, and `TicketsUnavailableError`."""
        try:
            header = jwt.get_unverified_header(ticket)
            algorithm = header.get("alg")
            fields = jwt.decode(
                ticket,
                await self._key(algorithm, header.get("kid")),
                algorithms=[str(algorithm)],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp"], "verify_aud": self._audience is not None},
            )
            return self._viewer(_Claims.model_validate(fields))
        except jwt.PyJWTError as error:
            raise TicketError(_reason(error)) from error
        except ValidationError as error:
            names = {"user_id": "sub"}
            found = str(error.errors(include_url=False, include_input=False)[0]["loc"][0])
            raise TicketError(f"the claim {names.get(found, found)} is missing or not valid") from error

    async def _key(self, algorithm: object, key_id: object) -> Any:
        if algorithm == "HS256" and self._secret is not None:
            return self._secret.get_secret_value()
        if algorithm == "RS256" and self._keys is not None:
            return (await self._keys.key(key_id if isinstance(key_id, str) else None)).key
        raise TicketError("its algorithm is not one that this bridge has a key for")

    def _viewer(self, claims: _Claims) -> Viewer:
        if claims.exp <= self._now():  # no leeway here: the connection would be closed at once, and come back with it
            raise TicketError("has expired")
        if claims.exp - self._now() > self._max_seconds + LEEWAY_SECONDS:
            raise TicketError(f"is valid for longer than {self._max_seconds:.0f} s")
        words = claims.scope.split()
        scope = next((scope for scope in _SCOPES if scope in words), None)
        if scope is None:
            raise TicketError("the claim scope has none of: user, tenant, operator")
        if scope is not Scope.OPERATOR and claims.tenant_id is None:
            raise TicketError("the claim tenant_id is missing")
        if scope is Scope.USER and claims.user_id is None:
            raise TicketError("the claim sub is missing")
        expires_at = datetime.fromtimestamp(claims.exp, UTC)
        return Viewer(scope=scope, user_id=claims.user_id, tenant_id=claims.tenant_id, expires_at=expires_at)


def key_set_of_file(path: Path) -> FetchKeys:
    """Reads the key set anew each time: keys are rotated by replacing the file."""

    async def fetch() -> dict[str, Any]:
        return _object(await asyncio.to_thread(path.read_bytes))

    return fetch


def key_set_of_url(url: str) -> FetchKeys:
    """Fetches the key set from an identity provider."""

    async def fetch() -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
            session.get(url, allow_redirects=False) as response,  # who may sign tickets is said by this address alone
        ):
            if response.status != HTTPStatus.OK:
                raise ValueError(f"the key set's address answered {response.status}")
            return _object(await response.content.read(MAX_KEY_SET_BYTES))

    return fetch


def _object(data: bytes) -> dict[str, Any]:
    fields = json.loads(data)
    if not isinstance(fields, dict):
        raise ValueError("a key set is a JSON object")  # noqa: TRY004 - the file is wrong, not the caller
    return fields


def _reason(error: jwt.PyJWTError) -> str:
    match error:
        case jwt.ExpiredSignatureError():
            return "has expired"
        case jwt.InvalidAudienceError():
            return "is for another audience"
        case jwt.InvalidIssuerError():
            return "is of another issuer"
        case jwt.MissingRequiredClaimError():
            return f"the claim {error.claim} is missing"
        case jwt.InvalidSignatureError():
            return "its signature is wrong"
    return "is no valid JWT"
