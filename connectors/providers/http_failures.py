"""What goes wrong on the way to any provider and back, put into our categories: what holds for every SDK.

A provider's own table (`anthropic_errors`, `google_errors`) says what its words mean. Here is the rest: what a status
means where the body says nothing better, what the transport's exceptions mean, and what may be quoted in a message.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import httpx2

from connectors.providers.answer_draft import AnswerDraft
from connectors.providers.base import Failed
from connectors.providers.http_client import ResponseTooLargeError
from connectors.providers.rate_limit_headers import rate_limits
from connectors.providers.retry_after import retry_after_seconds
from policy.failures import possibly_billed, problem
from schemas.vocabulary import FailureCategory as F

BY_STATUS: dict[int, F] = {
    400: F.INVALID_REQUEST,
    401: F.AUTHENTICATION,
    402: F.QUOTA_EXHAUSTED,
    403: F.PERMISSION,
    404: F.NOT_FOUND,
    405: F.NOT_FOUND,
    408: F.TIMEOUT_TOTAL,  # gateways: the model behind them took too long
    409: F.OVERLOADED,  # a lock could not be had in time; the SDKs retry it as well
    429: F.RATE_LIMITED,
    503: F.OVERLOADED,
    529: F.OVERLOADED,
}
BY_HUNDRED: dict[int, F] = {3: F.NOT_FOUND, 4: F.INVALID_REQUEST, 5: F.SERVER_ERROR}


@dataclass(frozen=True, slots=True)
class _Transport:
    category: F
    request_sent: bool
    message: str


BY_TRANSPORT: tuple[tuple[type[Exception], _Transport], ...] = (
    (httpx2.ConnectTimeout, _Transport(F.TIMEOUT_CONNECT, False, "no connection in time")),
    (httpx2.PoolTimeout, _Transport(F.TIMEOUT_CONNECT, False, "no free connection in time")),
    (httpx2.WriteTimeout, _Transport(F.TIMEOUT_CONNECT, False, "the request could not be sent in time")),
    (httpx2.ConnectError, _Transport(F.CONNECTION, False, "no connection")),
    (httpx2.ProxyError, _Transport(F.CONNECTION, False, "the proxy refused")),
    (httpx2.UnsupportedProtocol, _Transport(F.CONNECTION, False, "the address has a protocol that is not supported")),
    (httpx2.WriteError, _Transport(F.CONNECTION, False, "the connection broke while the request was sent")),
    (ResponseTooLargeError, _Transport(F.MALFORMED, True, "the response is larger than any answer may be")),
    (httpx2.DecodingError, _Transport(F.MALFORMED, True, "the response is compressed wrongly")),
    (Exception, _Transport(F.CONNECTION, True, "the connection broke after the request was sent")),
)
"""The first class that fits counts. Timeouts while reading are told apart by how far the answer was."""

REMEDIES: dict[F, str] = {
    F.AUTHENTICATION: "check the key in the variable that api_key_env names",
    F.PERMISSION: "the key may not use this model, or not from here",
    F.NOT_FOUND: "check the model's name and base_url",
    F.QUOTA_EXHAUSTED: "check the account's plan and billing",
    F.CONTEXT_LENGTH: "shorten the messages, or choose a model with a larger context",
}

_MAX_QUOTED_CHARACTERS = 300
_ECHO_CHARACTERS = 24
_ECHO_STEP = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class CallFacts:
    """What must be known of a call to judge its failure. `texts` and `secret` may never show up in a message."""

    draft: AnswerDraft
    now: datetime
    texts: tuple[str, ...]
    secret: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """An error in the provider's own words. `category` where the words alone decide it."""

    category: F | None = None
    code: str | None = None
    message: str = ""
    retry_after_seconds: float | None = None


def by_status(
    status: int, said: Said, headers: Mapping[str, str], facts: CallFacts, *, request_id: str | None
) -> Failed:
    """A response with a status that is no success."""
    category = said.category or category_of_status(status)
    retry_after = retry_after_seconds(headers, now=facts.now)
    return Failed(
        problem=problem(
            category,
            quoting(f"HTTP {status}", category, said.message, facts),
            remedy=REMEDIES.get(category),
            provider_code=said.code,
            http_status=status,
            retry_after_seconds=said.retry_after_seconds if retry_after is None else retry_after,
        ),
        possibly_billed=possibly_billed(category, request_sent=True, answer_begun=False),
        provider_request_id=request_id,
        limits=rate_limits(headers, facts.now),
    )


def amid_answer(said: Said, facts: CallFacts, *, status: int | None = None) -> Failed:
    """An error event of a stream, or an error with status 200. `status`: the one that its body claims, if any."""
    category = said.category or (F.SERVER_ERROR if status is None else category_of_status(status))
    return _from_here(
        category,
        quoting("an error instead of an answer", category, said.message, facts),
        facts,
        provider_code=said.code,
        retry_after_seconds=said.retry_after_seconds,
    )


def by_transport(error: Exception, facts: CallFacts) -> Failed:
    """An exception of the HTTP client: no status came, or the body did not come whole."""
    if isinstance(error, httpx2.ReadTimeout):
        return _from_here(*_read_timeout(facts), facts)
    transport = next(found for kind, found in BY_TRANSPORT if isinstance(error, kind))
    message = f"{transport.message} ({type(error).__name__})"
    return _from_here(transport.category, message, facts, request_sent=transport.request_sent)


def unreadable(error: Exception, facts: CallFacts) -> Failed:
    """What came with status 200 is no JSON, or not of the form that was promised."""
    # Our own errors quote nothing; the text of others may.
    ours = type(error).__module__.startswith("connectors.")
    what = str(error) if ours else f"it is not what the SDK expects ({type(error).__name__})"
    return _from_here(F.MALFORMED, f"the response cannot be read: {what}", facts)


def not_sendable(what: str, *, field: str) -> Failed:
    """The request cannot be put into the provider's form. Nothing was sent."""
    return Failed(problem=problem(F.INVALID_REQUEST, what, field=field))


def in_the_sdk(error: Exception, facts: CallFacts) -> Failed:
    """An exception of the SDK that nobody foresaw."""
    return _from_here(F.UNKNOWN, f"{type(error).__name__} in the SDK", facts)


def category_of_status(status: int) -> F:
    """What a status means by itself."""
    return BY_STATUS.get(status) or BY_HUNDRED.get(status // 100, F.UNKNOWN)


def quoting(what: str, category: F, said: str, facts: CallFacts) -> str:
    """What happened, in the provider's own words where they give nothing away."""
    said = " ".join(said[:_MAX_QUOTED_CHARACTERS].split())
    # A refused key is quoted back, and so, by some servers, is a part of the messages.
    if not said or category is F.AUTHENTICATION or facts.secret in said or _echoes(said, facts.texts):
        return what
    return f"{what}: {said}"


def _echoes(said: str, texts: Iterable[str]) -> bool:
    last = max(1, len(said) - _ECHO_CHARACTERS + 1)
    parts = [said[start : start + _ECHO_CHARACTERS] for start in range(0, last, _ECHO_STEP)]
    plain = [" ".join(text.split()) for text in texts]
    return any((len(text) >= _ECHO_STEP and text in said) or any(part in text for part in parts) for text in plain)


def _read_timeout(facts: CallFacts) -> tuple[F, str]:
    if not facts.draft.streamed:
        return F.TIMEOUT_TOTAL, "no answer in time"
    if not facts.draft.text_begun:
        return F.TIMEOUT_FIRST_TOKEN, "no first token in time"
    return F.TIMEOUT_STALL, "the stream fell silent"


def _from_here(
    category: F,
    message: str,
    facts: CallFacts,
    *,
    request_sent: bool = True,
    provider_code: str | None = None,
    retry_after_seconds: float | None = None,
) -> Failed:
    return Failed(
        problem=problem(
            category,
            message,
            remedy=REMEDIES.get(category),
            provider_code=provider_code,
            retry_after_seconds=retry_after_seconds,
        ),
        possibly_billed=possibly_billed(category, request_sent=request_sent, answer_begun=facts.draft.begun),
        usage=facts.draft.usage,
        provider_request_id=facts.draft.request_id,
        limits=facts.draft.limits,
    )
