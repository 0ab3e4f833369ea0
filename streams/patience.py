"""Steps on the shared state that wait while it is away. Nothing is acknowledged meanwhile, so nothing is lost."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from connectors import metrics
from connectors.state.base import StateUnavailableError

T = TypeVar("T")
log = structlog.get_logger(__name__)


async def patiently(step: str, action: Callable[[], Awaitable[T]]) -> T:
    """Runs `action` until the store answers. Ends early only by cancellation."""

    def note(call: RetryCallState) -> None:
        metrics.state_unavailable.labels(step).inc()
        error = call.outcome.exception() if call.outcome else None
        log.warning("state_unavailable", step=step, tries=call.attempt_number, error=str(error))

    try:
        return await action()
    except StateUnavailableError as error:
        metrics.state_unavailable.labels(step).inc()
        log.warning("state_unavailable", step=step, tries=0, error=str(error))
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(StateUnavailableError),
        wait=wait_random_exponential(0.1, max=5),
        before_sleep=note,
        reraise=True,
    )
    return await retrying(action)
