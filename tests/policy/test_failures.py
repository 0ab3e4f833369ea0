import pytest

from policy.failures import TRAITS, possibly_billed, problem, speaks_of_provider
from schemas.vocabulary import FailureCategory as F


def test_every_category_has_its_traits() -> None:
    """No failure can occur that the table does not judge."""
    assert set(TRAITS) == set(F)


@pytest.mark.parametrize("category", [F.RATE_LIMITED, F.SERVER_ERROR, F.OVERLOADED, F.CONNECTION, F.TIMEOUT_CONNECT])
def test_what_may_pass_is_retried(category: F) -> None:
    """Rate limits, server errors, timeouts and broken connections may succeed when repeated."""
    assert problem(category, "x").retryable


@pytest.mark.parametrize(
    "category",
    [F.AUTHENTICATION, F.INVALID_REQUEST, F.CONTEXT_LENGTH, F.CONTENT_FILTER, F.QUOTA_EXHAUSTED, F.NOT_FOUND],
)
def test_what_cannot_pass_is_not_retried(category: F) -> None:
    """A wrong key, a bad request, a filter, an empty account and an unknown model stay what they are."""
    assert not problem(category, "x").retryable


@pytest.mark.parametrize("category", [F.INVALID_REQUEST, F.CONTENT_FILTER, F.TRUNCATED, F.RATE_LIMITED, F.DENIED])
def test_one_request_condemns_no_provider(category: F) -> None:
    """What lies with a request, or with our own pace, does not count against the provider's health."""
    assert not speaks_of_provider(category)


def test_knowledge_of_the_case_beats_the_table() -> None:
    """A caller that knows more of one failure may say whether to repeat it."""
    assert problem(F.TRUNCATED, "x").retryable
    assert not problem(F.TRUNCATED, "x", retryable=False).retryable


@pytest.mark.parametrize("category", list(F))
def test_nothing_is_billed_that_was_not_sent(category: F) -> None:
    """A request that never reached the provider in full costs nothing, however it failed."""
    assert not possibly_billed(category, request_sent=False, answer_begun=False)


@pytest.mark.parametrize("category", list(F))
def test_an_answer_that_began_may_be_billed(category: F) -> None:
    """Once the provider has said 200 the call may be on the bill, however it went on."""
    assert possibly_billed(category, request_sent=True, answer_begun=True)


def test_a_refusal_before_work_is_free() -> None:
    """A rate limit is a definite refusal; a server error may have come after the work."""
    assert not possibly_billed(F.RATE_LIMITED, request_sent=True, answer_begun=False)
    assert possibly_billed(F.SERVER_ERROR, request_sent=True, answer_begun=False)
