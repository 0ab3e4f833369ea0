"""The command line with a point at which the process dies as by `kill -9`, for tests: FAIL_POINT names it.

The points stand here and not in the code that is tested: what runs in a deployment has none.
"""

import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from connectors.kafka.faust_transport import SafeConsumer
from connectors.kafka.producer import Outgoing, Producer
from connectors.state.redis_store import RedisStateStore
from schemas.envelope import header
from schemas.vocabulary import State
from sluice.cli import main
from streams import provider_call

POINTS = (
    "before_claim",
    "after_claim",
    "during_call",
    "answer_received",
    "outcome_stored",
    "status_published",
    "result_published",
    "before_commit",
    "retry_stored",
    "retry_published",
)
FAIL_POINT = os.environ.get("FAIL_POINT", "")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def around(method: Callable[..., Awaitable[Any]], *, before: str = "", after: str = "") -> Callable[..., Any]:
    async def failing(*args: Any, **kwargs: Any) -> Any:
        if before == FAIL_POINT:
            die()
        result = await method(*args, **kwargs)
        if after == FAIL_POINT:
            die()
        return result

    return failing


def within_call(make_call: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    async def failing(*args: Any, **kwargs: Any) -> Any:
        if FAIL_POINT != "during_call":
            return await make_call(*args, **kwargs)

        async def first_piece(_text: str) -> None:
            die()

        return await make_call(*args, **{**kwargs, "on_text": first_piece})

    return failing


def after_sending(send: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    async def failing(self: Producer, record: Outgoing) -> Any:
        result = await send(self, record)
        kind = header(record.headers, "ce_type")
        sent = {
            "status_published": kind == State.COMPLETED.event_type,
            "result_published": "llm.results" in record.topic,
            "retry_published": "llm.retry." in record.topic,
        }
        if sent.get(FAIL_POINT):
            die()
        return result

    return failing


def after_acknowledging(ack: Callable[..., bool]) -> Callable[..., Any]:
    def failing(*args: Any) -> bool:
        acknowledged = ack(*args)
        if FAIL_POINT == "before_commit":
            die()
        return acknowledged

    return failing


def install() -> None:
    """Puts the points around the steps that leave the process."""
    store: Any = RedisStateStore
    store.claim = around(store.claim, before="before_claim", after="after_claim")
    store.settle = around(store.settle, before="answer_received", after="outcome_stored")
    store.reschedule = around(store.reschedule, after="retry_stored")
    producer: Any = Producer
    producer.send = after_sending(producer.send)
    consumer: Any = SafeConsumer
    consumer.ack = after_acknowledging(consumer.ack)
    calling: Any = provider_call
    calling.make_call = within_call(calling.make_call)


if __name__ == "__main__":
    assert FAIL_POINT in POINTS, FAIL_POINT
    install()
    main()
