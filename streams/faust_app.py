"""A Faust application for one stage: one consumer group, and for each of its topics an agent that hands records on."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import faust
from faust.streams import Stream
from faust.types import EventT, StreamT

from connectors.kafka.faust_transport import MAX_UNTAKEN_RECORDS, SafeTransport, taken
from connectors.kafka.faust_transport import is_surely_new as is_new_to_all
from connectors.kafka.faust_transport import may_have_been_called as is_maybe_called
from connectors.settings import WorkerSettings
from streams.context import Delivery
from streams.deliveries import moment_of
from streams.records_at_work import RecordRunner

MAX_POLL_RECORDS = 100
BUFFERED_RECORDS = 2 * (MAX_UNTAKEN_RECORDS + MAX_POLL_RECORDS)
"""More than is ever in it: Faust's own limit begins at four fifths of this, and stops all topics."""


def build_app(
    *,
    group: str,
    topics: Sequence[str],
    runner: RecordRunner,
    client_options: Mapping[str, Any],
    settings: WorkerSettings,
) -> faust.App:
    """An application that is ready to start. A record is acknowledged when the runner is done with it.

    While the runner takes no more of one topic, the others are read as before.
    """
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
    app.transport = app.producer_transport = SafeTransport(app, client_options, on_revoked=runner.forget)
    for topic in topics:
        _add_agent(app, topic, runner)
    return app


def _add_agent(app: faust.App, topic: str, runner: RecordRunner) -> None:
    records = app.topic(topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")

    @app.agent(records, name=f"{topic}.agent")
    async def feed(stream: StreamT[bytes]) -> None:
        async for event in cast("Stream[bytes]", stream).noack().events():
            delivery = replace(
                delivery_of(event),
                is_surely_new=is_new_to_all(app, event.message),
                may_have_been_called=is_maybe_called(app, event.message),
            )
            await runner.submit(delivery, event.ack)
            taken(app, event.message)


def delivery_of(event: EventT[Any]) -> Delivery:
    """The record behind an event. Headers come from the message: Faust's own view drops repeated names."""
    message = event.message
    headers = message.headers or ()
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return Delivery(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        timestamp=moment_of(message.timestamp),
        key=message.key,
        value=message.value or b"",
        is_null=message.value is None,
        headers=tuple((name, value) for name, value in pairs),
    )
