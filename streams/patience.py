"""Steps that wait while what they need is away. Nothing is acknowledged meanwhile, so nothing is lost."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from connectors import metrics
from connectors.state.base import StateUnavailableError
from schemas.codec import SchemaUnavailableError

T = TypeVar("T")
AWAY = (StateUnavailableError, SchemaUnavailableError)
log = structlog.get_logger(__name__)


async def patiently(step: str, action: Callable[[], Awaitable[T]]) -> T:
    """Runs `action` until the shared state, or the schema registry, answers. Ends early only by cancellation."""

    def note(call: RetryCallState) -> None:
        metrics.waits_for_others.labels(step).inc()
        error = call.outcome.exception() if call.outcome else None
        log.warning("step_waits", step=step, tries=call.attempt_number, error=str(error))

    try:
        return await action()
    except AWAY as error:
        metrics.waits_for_others.labels(step).inc()
        log.warning("step_waits", step=step, tries=0, error=str(error))

    async def again() -> T:
        # tenacity awaits what it can tell to be a coroutine function, and `action` may be a lambda that makes one.
        return await action()

    retrying = AsyncRetrying(
        retry=retry_if_exception_type(AWAY),
        wait=wait_random_exponential(0.1, max=5),
        before_sleep=note,
        reraise=True,
    )
    return await retrying(again)
