"""What the OpenAI SDK raises, and what servers of chat completions say in bodies, put into our categories.

Read from the strongest sign to the weakest: the error's code or type, a phrase in its message, the HTTP status; and
for what never got a status, the transport's exception. What holds for every SDK is in `http_failures`.
"""

from typing import Any

import httpx2
from openai import APIConnectionError, APIError, APIStatusError

from connectors.providers.answer_draft import ErrorBodyError
from connectors.providers.base import Failed
from connectors.providers.http_failures import (
    CallFacts,
    Said,
    amid_answer,
    by_status,
    by_transport,
    in_the_sdk,
    unreadable,
)
from policy.failures import problem
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
    "DeploymentNotFound": F.NOT_FOUND,  # Azure
    "rate_limit_exceeded": F.RATE_LIMITED,
    "server_overloaded": F.OVERLOADED,
    "overloaded_error": F.OVERLOADED,
    "server_error": F.SERVER_ERROR,
}
"""By the error's `code`, else its `type`. Stronger than the status: a 429 may be a quota, a 400 a filter."""

BY_PHRASE: dict[str, F] = {
    "maximum context length": F.CONTEXT_LENGTH,  # vLLM and OpenRouter say it in the message alone
}

BY_TYPE_WITHOUT_STATUS: dict[str, F] = {
    "invalid_request_error": F.INVALID_REQUEST,
    "BadRequestError": F.INVALID_REQUEST,
}
"""In an error that came amid an answer there is no status to go by."""


class CredentialError(Exception):
    """No token could be had to call with. Nothing was sent."""


def failed(error: Exception, facts: CallFacts) -> Failed:
    """The failure that an exception stands for."""
    if isinstance(error, APIStatusError):
        said = _said(error.body)
        return by_status(error.status_code, said, error.response.headers, facts, request_id=error.request_id)
    if isinstance(error, APIConnectionError | httpx2.HTTPError):
        # The SDK wraps the transport's exception, which says more.
        cause = error.__cause__ if isinstance(error, APIConnectionError) else error
        return by_transport(cause if isinstance(cause, Exception) else error, facts)
    if isinstance(error, ErrorBodyError | APIError):
        return _amid_answer(error.body, facts)
    if isinstance(error, CredentialError):
        return Failed(problem=problem(F.AUTHENTICATION, str(error)))
    if isinstance(error, ValueError | RecursionError):  # broken JSON, broken UTF-8, MalformedAnswerError
        return unreadable(error, facts)
    return in_the_sdk(error, facts)


def _amid_answer(body: object, facts: CallFacts) -> Failed:
    """An error event of a stream, or an error with status 200. Some gateways put the status in as the code."""
    said = _said(body, without_status=True)
    status = int(said.code) if said.code and said.code.isdecimal() and len(said.code) == 3 else None
    return amid_answer(said, facts, status=status)


def _said(body: object, *, without_status: bool = False) -> Said:
    code, kind, message = _field(body, "code"), _field(body, "type"), _field(body, "message") or ""
    category = BY_CODE.get(code or "") or BY_CODE.get(kind or "") or _by_content(body, message)
    if category is None and without_status and not (code or "").isdecimal():
        category = BY_TYPE_WITHOUT_STATUS.get(kind or "")
    return Said(category=category, code=code or kind, message=message)


def _by_content(body: Any, message: str) -> F | None:
    metadata = body.get("metadata") if isinstance(body, dict) else None
    if isinstance(metadata, dict) and "reasons" in metadata:  # OpenRouter's moderation, with status 403
        return F.CONTENT_FILTER
    message = message.lower()
    return next((category for phrase, category in BY_PHRASE.items() if phrase in message), None)


def _field(body: Any, name: str) -> str | None:
    value = body.get(name) if isinstance(body, dict) else None
    return None if value is None or isinstance(value, dict | list) else str(value)
