"""What google-genai raises, and what the API says in bodies, put into our categories: all of it in tables.

Read from the strongest sign to the weakest: the reason in the error's details, the quota that it names, a phrase in
its message, the HTTP status; and its status word, for an error amid an answer. The transport's exceptions come as
they are.
"""

import re
from dataclasses import replace
from typing import Any

import httpx2
from google.genai import errors

from connectors.providers import http_failures
from connectors.providers.answer_draft import ErrorBodyError
from connectors.providers.base import Failed
from connectors.providers.http_failures import CallFacts, Said
from schemas.vocabulary import FailureCategory as F

BY_REASON: dict[str, F] = {
    "API_KEY_INVALID": F.AUTHENTICATION,  # with status 400
    "API_KEY_EXPIRED": F.AUTHENTICATION,
    "API_KEY_SERVICE_BLOCKED": F.PERMISSION,
    "BILLING_DISABLED": F.QUOTA_EXHAUSTED,  # with status 403
}
"""By `reason` of an `ErrorInfo`."""

BY_QUOTA: dict[str, F] = {
    "PerDay": F.QUOTA_EXHAUSTED,  # until midnight: no wait that a retry would hold out
}
"""By a part of `quotaId`. Any other quota of a 429 is one a minute, and so our own pace."""

BY_PHRASE: dict[str, F] = {
    "exceeds the maximum number of tokens": F.CONTEXT_LENGTH,
    "credits are depleted": F.QUOTA_EXHAUSTED,
}
"""An `INVALID_ARGUMENT` or `RESOURCE_EXHAUSTED` says these in its message alone."""

BY_WORD: dict[str, F] = {
    "INVALID_ARGUMENT": F.INVALID_REQUEST,
    "FAILED_PRECONDITION": F.INVALID_REQUEST,
    "OUT_OF_RANGE": F.INVALID_REQUEST,
    "UNAUTHENTICATED": F.AUTHENTICATION,
    "PERMISSION_DENIED": F.PERMISSION,
    "NOT_FOUND": F.NOT_FOUND,
    "ABORTED": F.OVERLOADED,
    "RESOURCE_EXHAUSTED": F.RATE_LIMITED,
    "UNAVAILABLE": F.OVERLOADED,
    "DEADLINE_EXCEEDED": F.TIMEOUT_TOTAL,
}
"""By `error.status` (google.rpc.Code), for an error amid an answer. With an HTTP status, that says more."""

EXCEPTIONS = (
    *(errors.APIError, ErrorBodyError, httpx2.HTTPError, httpx2.StreamError),
    *(ValueError, RecursionError, TypeError, AttributeError, LookupError),
)
"""What a call may raise. The last ones: the SDK stumbles over JSON of a form that it does not expect."""

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")


def failed(error: Exception, facts: CallFacts) -> Failed:
    """The failure that an exception stands for."""
    if isinstance(error, errors.APIError):
        if facts.draft.begun or not isinstance(error.response, httpx2.Response):
            return _amid_answer(error.details, facts)
        said = _said(error.details)
        return http_failures.by_status(error.response.status_code, said, error.response.headers, facts, request_id=None)
    if isinstance(error, ErrorBodyError):
        return _amid_answer(error.body, facts)
    if isinstance(error, httpx2.HTTPError | httpx2.StreamError):
        return http_failures.by_transport(error, facts)
    if facts.draft.begun:
        return http_failures.unreadable(error, facts)
    return http_failures.in_the_sdk(error, facts)


def _amid_answer(body: object, facts: CallFacts) -> Failed:
    said = _said(body)
    error = _error(body)
    status = error.get("code")
    said = replace(said, category=said.category or BY_WORD.get(_words(error, "status")))
    return http_failures.amid_answer(said, facts, status=status if isinstance(status, int) else None)


def _said(body: object) -> Said:
    error = _error(body)
    details = error.get("details")
    known = [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []
    reasons = [_words(detail, "reason") for detail in known]
    message = _words(error, "message")
    return Said(
        category=_by_reason(reasons) or _by_quota(known) or _by_phrase(message),
        code=next((reason for reason in reasons if reason), None) or _words(error, "status") or None,
        message=message,
        retry_after_seconds=next((seconds for detail in known if (seconds := _delay(detail)) is not None), None),
    )


def _error(body: object) -> dict[str, Any]:
    """The error in a body. Streams wrap it into a list."""
    body = body[0] if isinstance(body, list) and body else body
    inner = body.get("error", body) if isinstance(body, dict) else None
    return inner if isinstance(inner, dict) else {}


def _by_reason(reasons: list[str]) -> F | None:
    return next((BY_REASON[reason] for reason in reasons if reason in BY_REASON), None)


def _by_quota(details: list[dict[str, Any]]) -> F | None:
    violations = [found for detail in details for found in detail.get("violations") or () if isinstance(found, dict)]
    quotas = [_words(violation, "quotaId") for violation in violations]
    return next((category for part, category in BY_QUOTA.items() if any(part in quota for quota in quotas)), None)


def _by_phrase(message: str) -> F | None:
    lower = message.lower()
    return next((category for phrase, category in BY_PHRASE.items() if phrase in lower), None)


def _delay(detail: dict[str, Any]) -> float | None:
    """Seconds of a `RetryInfo`, as protobuf writes durations: `34s`, `1.5s`."""
    found = _DURATION.fullmatch(_words(detail, "retryDelay"))
    return float(found.group(1)) if found else None


def _words(thing: dict[str, Any], name: str) -> str:
    value = thing.get(name)
    return value if isinstance(value, str) else ""
