"""Requests, failures and catalogues that the tests of stages share."""

from typing import Any

from connectors.providers.base import Failed
from policy.catalogue import Catalogue, ProviderEntry
from policy.failures import problem
from schemas import LLMRequest
from schemas.vocabulary import FailureCategory

REQUEST_ID = "r-1"


def request(request_id: str = REQUEST_ID, **fields: Any) -> LLMRequest:
    """A chat with one message."""
    return LLMRequest.model_validate(
        {"request_id": request_id, "messages": [{"role": "user", "content": "hi"}], **fields}
    )


def failed(
    category: FailureCategory, *, retry_after_seconds: float | None = None, possibly_billed: bool = False
) -> Failed:
    """A call that failed so."""
    return Failed(
        problem=problem(category, f"it is {category}", retry_after_seconds=retry_after_seconds),
        possibly_billed=possibly_billed,
    )


OVERLOADED = failed(FailureCategory.OVERLOADED)
"""May pass, and cost nothing."""
BROKEN_STREAM = failed(FailureCategory.TRUNCATED, possibly_billed=True)
UNAUTHORISED = failed(FailureCategory.AUTHENTICATION)
"""Does not pass."""


def catalogue(*names: str, cloud: tuple[str, ...] = (), models: tuple[str, ...] = ("model-1",)) -> Catalogue:
    """Providers that all serve `models`, in this order. Those in `cloud` are not local."""
    return Catalogue(
        providers={
            name: ProviderEntry(type="simulated", models=list(models), local=name not in cloud) for name in names
        }
    )


TWO_PROVIDERS = catalogue("first", "second")
