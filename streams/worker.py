"""One worker process of a stage: builds it with its connections, runs it until told to stop, and drains it.

On SIGTERM or SIGINT: read no more; let running calls end for `worker.drain_seconds`; end the rest, uncommitted, and
give their leases back; commit what is done; leave the group. Another worker goes on at once.
"""

import os
from contextlib import AsyncExitStack
from functools import partial

from connectors.kafka.client import client_options
from connectors.kafka.faust_transport import backlog, forget_own_calls, record_own_call
from connectors.kafka.groups import until_read
from connectors.providers.pricing_file import load_prices
from connectors.providers.recorder import with_recording
from connectors.providers.registry import PROVIDER_TYPES, build_provider
from connectors.settings import RetrySettings, Settings
from connectors.state.redis_shared_values import RedisSharedValues
from policy.catalogue import Catalogue
from policy.retry import RetryPolicy
from streams.availability import ProviderAvailability
from streams.commands import CancelListener
from streams.context import Delivery
from streams.dispatch import Dispatcher
from streams.ending import Ending
from streams.gate import SharedGate
from streams.gating_slots import SlotGate
from streams.intake import Intake
from streams.lane import Lane
from streams.lane_reports import LaneReporter, LaneSources
from streams.leases import Interruption, LeaseKeeper
from streams.own_claims import EndsOfOthers, OutageClaims
from streams.pool import Pool
from streams.process import Stage, background, ending_topics, open_context, run_stage
from streams.provider_call import ProviderCaller
from streams.records import RecordWriter

RECORDS_PER_CALL_SLOT = 2
"""Records a lane holds beyond its calls: those that wait for somebody else's lease must not take up call slots."""


async def run_intake(settings: Settings, catalogue: Catalogue) -> int:
    """Runs an intake worker until it is told to stop. Returns the exit code."""
    async with AsyncExitStack() as stack:
        context = await stack.enter_async_context(open_context(settings, catalogue))
        availability = ProviderAvailability(_shared_values(settings, stack), catalogue.providers)
        availability.start()
        stack.push_async_callback(availability.close)
        ending = Ending(context, RecordWriter(context.codec, settings.topics, "/sluice/intake"))
        intake = Intake(context, ending, unavailable=availability.unavailable)
        lanes = [topic for name in catalogue.providers for topic in settings.topics.lanes(name).values()]
        stage = Stage(
            role="intake",
            group=settings.intake_group,
            topics=(settings.topics.requests,),
            writes=(*lanes, *settings.worker.result_topics, *ending_topics(settings.topics)),
            runner=Pool(intake.handle, limit=settings.worker.intake_concurrency, stage="intake"),
        )
        return await run_stage(stage, settings)


async def run_lane(settings: Settings, catalogue: Catalogue, provider_name: str) -> int:
    """Runs a worker of one provider's lane until it is told to stop. Returns the exit code."""
    entry = catalogue.providers[provider_name]
    topics = settings.topics
    concurrency = entry.concurrency or PROVIDER_TYPES[entry.type].default_concurrency or settings.worker.concurrency
    async with AsyncExitStack() as stack:
        provider = with_recording(build_provider(provider_name, entry), os.environ)
        stack.push_async_callback(provider.close)
        context = await stack.enter_async_context(
            open_context(
                settings,
                catalogue,
                claims_of=lambda state: OutageClaims(
                    state, provider=provider_name, known_seconds=2 * settings.worker.lease_seconds
                ),
            )
        )
        claims = context.claims
        if not isinstance(claims, OutageClaims):
            raise TypeError("the context was opened with claims of another kind")
        claims.start()
        stack.push_async_callback(claims.close)
        leases = LeaseKeeper(claims, lease_seconds=settings.worker.lease_seconds)
        claims.on_back = leases.renew_soon
        leases.start()
        stack.push_async_callback(leases.close)
        shared = SharedGate(provider_name, catalogue, _shared_values(settings, stack), worker=context.worker)
        await shared.start()
        stack.push_async_callback(shared.close)
        gate = SlotGate(shared, slots=concurrency)
        writer = RecordWriter(context.codec, topics, f"/sluice/lane/{provider_name}")
        ending = Ending(context, writer, on_published=claims.published)
        caller = ProviderCaller(
            provider,
            name=provider_name,
            entry=entry,
            prices=load_prices(settings.prices_file),
            worker=context.worker,
            now=context.now,
        )
        listener = CancelListener(context, leases)

        confirming = (client_options(settings), settings.control_group("confirm"), topics.results)
        ends_of_others = EndsOfOthers(partial(until_read, *confirming))
        stack.push_async_callback(ends_of_others.close)

        async def on_record(delivery: Delivery) -> bool:
            app, place = stage.app, (delivery.topic, delivery.partition, delivery.offset)
            return app is not None and await claims.leave_word(partial(record_own_call, app, *place))

        async def off_record() -> None:
            if stage.app is not None:
                await forget_own_calls(stage.app, lambda: claims.are_known)

        lane = Lane(
            context,
            name=provider_name,
            entry=entry,
            caller=caller,
            leases=leases,
            ending=ending,
            retry=retry_policy(settings.retry),
            is_called_off=listener.has_called_off,
            record_own_call=on_record,
            ends_of_others=ends_of_others,
        )
        dispatcher = Dispatcher(
            lane.handle,
            gate=gate,
            limit=concurrency * RECORDS_PER_CALL_SLOT,
            stage="lane",
            priorities={topic: priority for priority, topic in topics.lanes(provider_name).items()},
            max_waiting_records=settings.worker.look_ahead_records,
            max_waiting_bytes=settings.worker.look_ahead_bytes,
        )
        stage = Stage(
            role=f"lane-{provider_name}",
            group=settings.lane_group(provider_name),
            topics=tuple(topics.lanes(provider_name).values()),
            writes=(
                topics.deltas,
                topics.commands,
                topics.lane_reports,
                *topics.retries.values(),
                *settings.worker.result_topics,
                *ending_topics(topics),
            ),
            runner=dispatcher,
            interrupt=lambda: leases.interrupt_all(Interruption.SHUTDOWN),
        )
        claims.on_known = off_record
        reporter = LaneReporter(
            context,
            provider=provider_name,
            sources=LaneSources(
                breaker=shared.snapshot,
                in_flight=lambda: gate.in_use,
                concurrency=concurrency,
                waiting=dispatcher.waiting_in_all,
                backlog=lambda: backlog(stage.app) if stage.app is not None else 0,
                is_away=lambda: claims.is_away,
            ),
        )
        caller.on_call = reporter.count
        shared.on_breaker_change(lambda _: reporter.breaker_changed())
        reporter.start()
        stack.push_async_callback(reporter.close)
        await stack.enter_async_context(background(listener.run(), name="cancel-listener"))
        return await run_stage(stage, settings)


def retry_policy(settings: RetrySettings) -> RetryPolicy:
    """The policy that the settings ask for."""
    return RetryPolicy(
        max_retries=settings.max_retries,
        base_seconds=settings.base_seconds,
        factor=settings.factor,
        max_seconds=settings.max_seconds,
    )


def _shared_values(settings: Settings, stack: AsyncExitStack) -> RedisSharedValues:
    values = RedisSharedValues.from_settings(settings.redis, settings.redis_url, namespace=settings.topic_prefix)
    stack.push_async_callback(values.close)
    return values
