"""One trial: a provider of some type, a server that treats it as a case says, and a call."""

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from connectors.providers.base import Answered, Call, Failed, Outcome, Provider
from connectors.providers.registry import build_provider
from policy.catalogue import ProviderEntry, Timeouts
from policy.comparison import COMPARISON_SCHEMA, comparison_messages, parse_comparison
from schemas.attempt import Problem
from streams.calling import make_call
from tests.providers.calls import a_call, outcome_of
from tests.providers.contract.adapters import KEY, KEY_VARIABLE, Adapter
from tests.providers.contract.cases import ANSWERED, Case, Expected, Patience, Where
from tests.support.fault_cases import CASES
from tests.support.fault_server import FaultServer

PATIENT = Timeouts(connect_seconds=60, first_token_seconds=60, stall_seconds=60, total_seconds=60)
IMPATIENT = Timeouts(connect_seconds=60, first_token_seconds=0.5, stall_seconds=0.5, total_seconds=0.5)
NO_TIME_TO_CONNECT = Timeouts(connect_seconds=0.4, first_token_seconds=60, stall_seconds=60, total_seconds=60)
IMPATIENT_FOR_TOKENS = Timeouts(connect_seconds=60, first_token_seconds=0.5, stall_seconds=0.5, total_seconds=60)
ESSAYS = (
    "Describe what moves you.",
    "The sea moves me because it never stays.",
    "Trains move me, mostly from the back.",
)


@dataclass
class Trial:
    """A provider at work, and its server if it calls one."""

    adapter: Adapter
    provider: Provider
    fault_server: FaultServer | None

    @property
    def server(self) -> FaultServer:
        assert self.fault_server, "this provider calls nobody"
        return self.fault_server

    def call(self, case: Case, *, streamed: bool, **parts: Any) -> Call:
        """A call that meets this case."""
        defaults: dict[str, Any] = {"model": case.name if self.adapter.wire else "m", "stream": streamed}
        if case.structured:
            defaults |= {
                "messages": comparison_messages(*ESSAYS),
                "response_schema": COMPARISON_SCHEMA,
                "response_schema_name": "comparison",
            }
        return a_call(**defaults | dict(self.adapter.calls.get(case.name, {})) | parts)

    async def outcome(self, case: Case, *, streamed: bool) -> Outcome:
        """How a call ends that meets this case, with everything that a lane does to it."""
        call = self.call(case, streamed=streamed)
        if not caller_keeps_time(self.adapter, case):
            return accepted(await outcome_of(self.provider, call), case)
        limits = IMPATIENT_FOR_TOKENS if streamed else IMPATIENT
        report = await make_call(self.provider, call, timeouts=limits, seconds_to_deadline=60, on_text=_ignore)
        return accepted(report.outcome, case)

    def requests(self, case: Case, *, streamed: bool) -> int:
        """How many requests of this case have reached the server. One, where there is none."""
        if self.fault_server is None:
            return 1
        return sum(
            exchange.asked.model == case.name for exchange in self.server.exchanges if exchange.streamed is streamed
        )


@asynccontextmanager
async def trial(
    adapter: Adapter, *, timeouts: Timeouts = PATIENT, http_client: httpx2.AsyncClient | None = None
) -> AsyncIterator[Trial]:
    """A provider of this type, and its server if it needs one."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(FaultServer(CASES, adapter.wire)) if adapter.wire else None
        root = server.root if server else ""
        provider = provider_at(root, adapter, timeouts=timeouts, http_client=http_client)
        stack.push_async_callback(provider.close)
        yield Trial(adapter, provider, server)


@asynccontextmanager
async def trial_at_no_server(adapter: Adapter, where: Where) -> AsyncIterator[Trial]:
    """A provider of this type, with an address where no connection comes about."""
    with socket.socket() as listening, ExitStack() as clients:
        listening.bind(("127.0.0.1", 0))
        host, port = listening.getsockname()
        if where is Where.FULL_QUEUE:
            listening.listen(0)
            for _ in range(4):
                client = clients.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex((host, port))
        provider = provider_at(f"http://{host}:{port}", adapter, timeouts=NO_TIME_TO_CONNECT)
        yield Trial(adapter, provider, None)
        await provider.close()


def provider_at(
    root: str, adapter: Adapter, *, timeouts: Timeouts = PATIENT, http_client: httpx2.AsyncClient | None = None
) -> Provider:
    """A provider of this type, with `root` for its address. Who calls this closes it."""
    entry = ProviderEntry.model_validate(adapter.full_entry(root, timeouts=timeouts))
    return build_provider("tried", entry, http_client=http_client, environ={KEY_VARIABLE: KEY})


def caller_keeps_time(adapter: Adapter, case: Case) -> bool:
    """Whether the case is one of time, and the provider itself would wait for ever."""
    by_caller = case.impatient is Patience.CALLER
    return by_caller or (case.impatient is Patience.PROVIDER and adapter.wire is None)


def accepted(outcome: Outcome, case: Case) -> Outcome:
    """What becomes of an outcome once the answer is held against its schema, as a lane does."""
    if isinstance(outcome, Failed) or not case.structured:
        return outcome
    comparison = parse_comparison(outcome.text)
    if not isinstance(comparison, Problem):
        return outcome
    return Failed(problem=comparison, possibly_billed=True, usage=outcome.usage, limits=outcome.limits)


def seen(outcome: Outcome) -> Expected:
    """An outcome in the table's terms."""
    if isinstance(outcome, Answered):
        return ANSWERED
    return Expected(outcome.problem.category, outcome.problem.retryable, outcome.possibly_billed)


async def _ignore(_text: str) -> None:
    pass
