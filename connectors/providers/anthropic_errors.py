"""What the Anthropic SDK raises, and what the API says in bodies, put into our categories: all of it in tables.

Read from the strongest sign to the weakest: the error's code, a phrase in its message, its type, the HTTP status. An
error event amid a stream comes as an `APIStatusError` with status 200.
"""

from dataclasses import replace
from typing import Any

import httpx2
from anthropic import APIConnectionError, APIStatusError

from connectors.providers import http_failures
from connectors.providers.answer_draft import ErrorBodyError
from connectors.providers.base import Failed
from connectors.providers.http_failures import CallFacts, Said
from schemas.vocabulary import FailureCategory as F

BY_CODE: dict[str, F] = {
    "contract_spend_limit_reached": F.QUOTA_EXHAUSTED,  # these two with status 429
    "enforced_spend_limit_reached": F.QUOTA_EXHAUSTED,
    "linked_organization_billing_unavailable": F.QUOTA_EXHAUSTED,
    "linked_organization_spend_limit_reached": F.QUOTA_EXHAUSTED,
    "organization_on_hold": F.PERMISSION,
    "sandbox_egress_restricted": F.PERMISSION,
}
"""By `error.details.error_code`, where the status would mislead. The SDK's `_error_classes` lists all codes."""

BY_PHRASE: dict[str, F] = {
    "prompt is too long": F.CONTEXT_LENGTH,
    "exceed context limit": F.CONTEXT_LENGTH,  # input length and max_tokens together
    "content filtering policy": F.CONTENT_FILTER,
    "credit balance is too low": F.QUOTA_EXHAUSTED,
    "specified api usage limits": F.QUOTA_EXHAUSTED,
}
"""An `invalid_request_error` with status 400 says these in its message alone."""

BY_TYPE: dict[str, F] = {
    "invalid_request_error": F.INVALID_REQUEST,
    "authentication_error": F.AUTHENTICATION,
    "billing_error": F.QUOTA_EXHAUSTED,
    "permission_error": F.PERMISSION,
    "not_found_error": F.NOT_FOUND,
    "request_too_large": F.INVALID_REQUEST,
    "conflict_error": F.OVERLOADED,
    "rate_limit_error": F.RATE_LIMITED,
    "timeout_error": F.TIMEOUT_TOTAL,
    "api_error": F.SERVER_ERROR,
    "overloaded_error": F.OVERLOADED,
}
"""By `error.type`, for an error amid an answer. With a status of its own, the status says more."""

EXCEPTIONS = (ErrorBodyError, httpx2.HTTPError, httpx2.StreamError, ValueError, RecursionError)
"""What a call may raise beside `AnthropicError`: the SDK lets the transport's and the JSON reader's errors through."""


def failed(error: Exception, facts: CallFacts) -> Failed:
    """The failure that an exception stands for."""
    if isinstance(error, APIStatusError):
        said = _said(error.body)
        if error.status_code == httpx2.codes.OK:
            return http_failures.amid_answer(_with_type(said, error.body), facts)
        return http_failures.by_status(
            error.status_code, said, error.response.headers, facts, request_id=error.request_id
        )
    if isinstance(error, ErrorBodyError):
        return http_failures.amid_answer(_with_type(_said(error.body), error.body), facts)
    if isinstance(error, APIConnectionError) and isinstance(error.__cause__, Exception):
        # The SDK wraps whatever was raised while it sent, bugs as well; the cause says more.
        error = error.__cause__
    elif isinstance(error, ValueError | RecursionError):
        return http_failures.unreadable(error, facts)
    if isinstance(error, httpx2.HTTPError | httpx2.StreamError | OSError):
        return http_failures.by_transport(error, facts)
    return http_failures.in_the_sdk(error, facts)


def _said(body: object) -> Said:
    error = _part(body, "error")
    code = _words(_part(error, "details"), "error_code")
    message = _words(error, "message")
    lower = message.lower()
    category = BY_CODE.get(code) or next((found for phrase, found in BY_PHRASE.items() if phrase in lower), None)
    return Said(category=category, code=code or _words(error, "type") or None, message=message)


def _with_type(said: Said, body: object) -> Said:
    return replace(said, category=said.category or BY_TYPE.get(_words(_part(body, "error"), "type")))


def _part(thing: Any, name: str) -> Any:
    return thing.get(name) if isinstance(thing, dict) else None


def _words(thing: object, name: str) -> str:
    value = _part(thing, name)
    return value if isinstance(value, str) else ""
