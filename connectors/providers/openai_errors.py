"""What the OpenAI SDK raises, and what the API says in bodies, put into our categories: all of it in tables.

Read from the strongest sign to the weakest: the error's code or type, a phrase in its message, the HTTP status; and
for what never got a status, the transport's exception.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx2
from openai import APIConnectionError, APIError, APIStatusError

from connectors.providers.base import Failed
from connectors.providers.http_client import ResponseTooLargeError
from connectors.providers.openai_answers import AnswerInProgress, ErrorBodyError
from connectors.providers.retry_after import retry_after_seconds
from policy.failures import possibly_billed, problem
from schemas.vocabulary import FailureCategory as F

BY_CODE: dict[str, F] = {
    "context_length_exceeded": F.CONTEXT_LENGTH,
    "string_above_max_length": F.CONTEXT_LENGTH,
    "exceed_context_size_error": F.CONTEXT_LENGTH,  # llama.cpp
    "insufficient_quota": F.QUOTA_EXHAUSTED,
    "billing_hard_limit_reached": F.QUOTA_EXHAUSTED,
    "billing_not_active": F.QUOTA_EXHAUSTED,
    "content_filter": F.CONTENT_FILTER,  # Azure
    "content_policy_violation": F.CONTENT_FILTER,
    "invalid_api_key": F.AUTHENTICATION,
    "model_not_found": F.NOT_FOUND,
    "rate_limit_exceeded": F.RATE_LIMITED,
    "server_overloaded": F.OVERLOADED,
    "overloaded_error": F.OVERLOADED,
    "server_error": F.SERVER_ERROR,
}
"""By the error's `code`, else its `type`. Stronger than the status: a 429 may be a quota, a 400 a filter."""

BY_PHRASE: dict[str, F] = {
    "maximum context length": F.CONTEXT_LENGTH,  # vLLM says it in the message alone
}

BY_STATUS: dict[int, F] = {
    400: F.INVALID_REQUEST,
    401: F.AUTHENTICATION,
    402: F.QUOTA_EXHAUSTED,
    403: F.PERMISSION,
    404: F.NOT_FOUND,
    405: F.NOT_FOUND,
    408: F.TIMEOUT_TOTAL,  # gateways: the model behind them took too long
    409: F.OVERLOADED,  # OpenAI: a lock could not be had in time; its SDK retries it as well
    429: F.RATE_LIMITED,
    503: F.OVERLOADED,
    529: F.OVERLOADED,
}
BY_HUNDRED: dict[int, F] = {3: F.NOT_FOUND, 4: F.INVALID_REQUEST, 5: F.SERVER_ERROR}

BY_TYPE_WITHOUT_STATUS: dict[str, F] = {
    "invalid_request_error": F.INVALID_REQUEST,
    "BadRequestError": F.INVALID_REQUEST,
}
"""In an error that came amid an answer there is no status to go by."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class CallFacts:
    """What must be known of a call to judge its failure. `texts` and `key` may never show up in a message."""

    answer: AnswerInProgress
    streamed: bool
    now: datetime
    texts: tuple[str, ...]
    key: str


def failed(error: Exception, facts: CallFacts) -> Failed:
    """The failure that an exception stands for."""
    if isinstance(error, APIStatusError):
        return _by_status(error, facts)
    if isinstance(error, APIConnectionError | httpx2.HTTPError):
        return _by_transport(error, facts)
    if isinstance(error, ErrorBodyError | APIError):
        return _amid_an_answer(error.body, facts)
    if isinstance(error, ValueError):  # broken JSON, broken UTF-8, MalformedAnswerError
        # The text of other errors may quote what came.
        what = str(error) if type(error).__module__.startswith("connectors.") else "it is not JSON in UTF-8"
        return _failed(F.MALFORMED, f"the response cannot be read: {what}", facts)
    return _failed(F.UNKNOWN, f"{type(error).__name__} in the SDK", facts)


def _by_status(error: APIStatusError, facts: CallFacts) -> Failed:
    status = error.status_code
    category = _by_body(error.body) or BY_STATUS.get(status) or BY_HUNDRED.get(status // 100, F.UNKNOWN)
    return Failed(
        problem=problem(
            category,
            _message(f"HTTP {status}", category, error.body, facts),
            remedy=REMEDIES.get(category),
            provider_code=_field(error.body, "code") or _field(error.body, "type"),
            http_status=status,
            retry_after_seconds=retry_after_seconds(error.response.headers, now=facts.now),
        ),
        possibly_billed=possibly_billed(category, request_sent=True, answer_begun=False),
        provider_request_id=error.request_id,
    )


def _by_transport(error: Exception, facts: CallFacts) -> Failed:
    # The SDK wraps the transport's exception, which says more.
    cause = error.__cause__ if isinstance(error, APIConnectionError) and error.__cause__ else error
    if isinstance(cause, httpx2.ReadTimeout):
        return _failed(*_read_timeout(facts), facts)
    transport = next(found for kind, found in BY_TRANSPORT if isinstance(cause, kind))
    message = f"{transport.message} ({type(cause).__name__})"
    return _failed(transport.category, message, facts, request_sent=transport.request_sent)


def _read_timeout(facts: CallFacts) -> tuple[F, str]:
    if not facts.streamed:
        return F.TIMEOUT_TOTAL, "no answer in time"
    if not facts.answer.text_begun:
        return F.TIMEOUT_FIRST_TOKEN, "no first token in time"
    return F.TIMEOUT_STALL, "the stream fell silent"


def _amid_an_answer(body: object, facts: CallFacts) -> Failed:
    """An error event of a stream, or an error with status 200. Some gateways put the status in as the code."""
    code = _field(body, "code") or ""
    status = int(code) if code.isdecimal() and len(code) == 3 else 0
    category = (
        _by_body(body)
        or BY_STATUS.get(status)
        or BY_HUNDRED.get(status // 100)
        or BY_TYPE_WITHOUT_STATUS.get(_field(body, "type") or "", F.SERVER_ERROR)
    )
    message = _message("an error instead of an answer", category, body, facts)
    return _failed(category, message, facts, provider_code=code or _field(body, "type"))


def _failed(
    category: F, message: str, facts: CallFacts, *, request_sent: bool = True, provider_code: str | None = None
) -> Failed:
    return Failed(
        problem=problem(category, message, remedy=REMEDIES.get(category), provider_code=provider_code),
        possibly_billed=possibly_billed(category, request_sent=request_sent, answer_begun=facts.answer.begun),
        provider_request_id=facts.answer.request_id,
    )


def _by_body(body: object) -> F | None:
    for name in ("code", "type"):
        category = BY_CODE.get(_field(body, name) or "")
        if category is not None:
            return category
    said = (_field(body, "message") or "").lower()
    return next((category for phrase, category in BY_PHRASE.items() if phrase in said), None)


def _message(what: str, category: F, body: object, facts: CallFacts) -> str:
    """What happened, in the provider's own words where they give nothing away."""
    said = (_field(body, "message") or "").strip()[:_MAX_QUOTED_CHARACTERS]
    # A refused key is quoted back, and so, by some servers, is a part of the messages.
    if not said or category is F.AUTHENTICATION or facts.key in said or _echoes(said, facts.texts):
        return what
    return f"{what}: {said}"


def _echoes(said: str, texts: Iterable[str]) -> bool:
    step = _ECHO_CHARACTERS // 2
    parts = [said[start : start + _ECHO_CHARACTERS] for start in range(0, len(said) - _ECHO_CHARACTERS + 1, step)]
    return any(part in text for text in texts for part in parts)


def _field(body: Any, name: str) -> str | None:
    value = body.get(name) if isinstance(body, dict) else None
    return None if value is None or isinstance(value, dict | list) else str(value)
