"""A Faust application for one stage: one topic, one consumer group, one agent that feeds a pool."""

import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import faust
from faust.streams import Stream
from faust.types import EventT, StreamT

from connectors.kafka.faust_transport import SafeTransport
from connectors.settings import WorkerSettings
from streams.context import Delivery
from streams.pool import Pool

MAX_POLL_RECORDS = 100
BUFFERED_RECORDS = 500
"""Records read ahead of the pool, per process: bounds memory (2.9 KB each with small values)."""


def build_app(
    *, group: str, topic: str, pool: Pool, client_options: Mapping[str, Any], settings: WorkerSettings
) -> faust.App:
    """An application that is ready to start. Its agent acknowledges a record when the pool is done with it."""
    session_timeout = settings.session_timeout_seconds
    app = faust.App(
        group,
        broker="kafka://" + str(client_options["bootstrap_servers"]).replace(",", ";kafka://"),
        autodiscover=False,
        store="memory://",
        # Faust makes this folder at every start, and the stages keep nothing in it.
        datadir=Path(tempfile.gettempdir()) / "sluice-faust",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        processing_guarantee="at_least_once",
        broker_commit_interval=0.5,
        broker_commit_every=1000,
        broker_max_poll_records=MAX_POLL_RECORDS,
        broker_session_timeout=session_timeout,
        broker_heartbeat_interval=min(3.0, session_timeout / 3),
        broker_request_timeout=max(40.0, session_timeout + 10),
        broker_rebalance_timeout=max(60.0, session_timeout),
        broker_max_poll_interval=86_400.0,
        stream_buffer_maxsize=BUFFERED_RECORDS,
        stream_wait_empty=False,
        stream_publish_on_commit=False,
        # The process's own signal handling stops it; Faust's would end calls in flight at once.
        worker_redirect_stdouts=False,
    )
    app.transport = app.producer_transport = SafeTransport(app, client_options)
    records = app.topic(topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")

    @app.agent(records, name=f"{group}.agent")
    async def feed(stream: StreamT[bytes]) -> None:
        async for event in cast("Stream[bytes]", stream).noack().events():
            await pool.submit(delivery_of(event), event.ack)

    return app


def delivery_of(event: EventT[Any]) -> Delivery:
    """The record behind an event. Headers come from the message: Faust's own view drops repeated names."""
    message = event.message
    headers = message.headers or ()
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return Delivery(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        timestamp=_moment(message.timestamp),
        key=message.key,
        value=message.value or b"",
        is_null=message.value is None,
        headers=tuple((name, value) for name, value in pairs),
    )


def _moment(timestamp_seconds: float) -> datetime:
    """A producer may write any number as its record's timestamp; one that is no date counts as now."""
    try:
        return datetime.fromtimestamp(timestamp_seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.now(UTC)
