"""What follows from each kind of failure: one table, and the one place where a `Problem` gets its verdict."""

from dataclasses import dataclass

from schemas.attempt import Problem
from schemas.vocabulary import FailureCategory as F


@dataclass(frozen=True, slots=True)
class Traits:
    """What a category of failure means for the request, for its provider, and for the bill.

    `retryable`: the same request, sent again later and unchanged, may well succeed.
    `speaks_of_provider`: the next request to this provider would probably meet it too, so a breaker counts it. Asked
    only for a call that the provider failed; an answer that came whole and does not fit is the model's, or the
    request's.
    `work_begun`: the provider may have done (and may charge for) work, if the request reached it in full.
    """

    retryable: bool
    speaks_of_provider: bool
    work_begun: bool


def _traits(*, retryable: bool = False, speaks: bool = False, work: bool = False) -> Traits:
    return Traits(retryable, speaks, work)


TRAITS: dict[F, Traits] = {
    # The provider, or the way to it, is in trouble: it may pass.
    F.OVERLOADED: _traits(retryable=True, speaks=True),
    F.TIMEOUT_CONNECT: _traits(retryable=True, speaks=True),
    F.TIMEOUT_FIRST_TOKEN: _traits(retryable=True, speaks=True, work=True),
    F.TIMEOUT_STALL: _traits(retryable=True, speaks=True, work=True),
    F.TIMEOUT_TOTAL: _traits(retryable=True, speaks=True, work=True),
    F.CONNECTION: _traits(retryable=True, speaks=True, work=True),
    F.SERVER_ERROR: _traits(retryable=True, speaks=True, work=True),
    # What came is no answer of the form asked for. Models vary, so another try may bring one.
    F.MALFORMED: _traits(retryable=True, speaks=True, work=True),
    # A cut answer is as often the work of a token limit or a proxy: it condemns no provider.
    F.TRUNCATED: _traits(retryable=True, work=True),
    # Our own pace: the limiter and Retry-After answer it, not the breaker.
    F.RATE_LIMITED: _traits(retryable=True),
    # The account: every request meets it, until a person acts.
    F.AUTHENTICATION: _traits(speaks=True),
    F.QUOTA_EXHAUSTED: _traits(speaks=True),
    # This request: the provider is well, and will say the same again.
    F.PERMISSION: _traits(),
    F.NOT_FOUND: _traits(),
    F.INVALID_REQUEST: _traits(),
    F.CONTEXT_LENGTH: _traits(),
    F.CONTENT_FILTER: _traits(),
    F.REFUSAL: _traits(work=True),
    F.CANCELLED: _traits(work=True),
    # Nobody foresaw it: repeating it blindly could be paid for several times.
    F.UNKNOWN: _traits(work=True),
    # Ends that the pipeline itself gives.
    F.UNDECODABLE: _traits(),
    F.TOO_LARGE: _traits(),
    F.NO_ROUTE: _traits(),
    F.DENIED: _traits(),
    F.QUEUE_FULL: _traits(retryable=True),
    F.DEADLINE: _traits(),
    F.OUTCOME_LOST: _traits(retryable=True, work=True),
    F.PROVIDER_UNAVAILABLE: _traits(retryable=True),
    F.BUDGET_EXHAUSTED: _traits(retryable=True),
}

MAX_MESSAGE_CHARACTERS = 500
"""Messages travel to browsers and into headers, and may quote what was sent."""


def problem(
    category: F,
    message: str,
    *,
    retryable: bool | None = None,
    field: str | None = None,
    remedy: str | None = None,
    provider_code: str | None = None,
    http_status: int | None = None,
    retry_after_seconds: float | None = None,
) -> Problem:
    """A `Problem` whose `retryable` is that of its category, unless the caller knows more of this very case."""
    return Problem(
        category=category,
        message=message if len(message) <= MAX_MESSAGE_CHARACTERS else message[:MAX_MESSAGE_CHARACTERS] + " ...",
        retryable=TRAITS[category].retryable if retryable is None else retryable,
        field=field,
        remedy=remedy,
        provider_code=provider_code,
        http_status=http_status,
        retry_after_seconds=retry_after_seconds,
    )


def speaks_of_provider(category: F) -> bool:
    """Whether a breaker should count a call that its provider failed in this way."""
    return TRAITS[category].speaks_of_provider


def possibly_billed(category: F, *, request_sent: bool, answer_begun: bool) -> bool:
    """Whether the provider may charge for a call that brought nothing.

    Yes as soon as an answer began (its status line said 200). Before that: only if the request was sent in full, and
    what came back is no refusal before work. When in doubt, yes: a bill that is announced wrongly harms less than one
    that nobody knew of.
    """
    return request_sent and (answer_begun or TRAITS[category].work_begun)
