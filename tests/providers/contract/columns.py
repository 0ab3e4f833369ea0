"""The matrix while it is filled: one server and provider a type, for building them anew for each cell takes minutes."""

import asyncio
from contextlib import AsyncExitStack

from connectors.providers.base import Outcome
from connectors.providers.http_client import new_http_client
from tests.providers.contract.adapters import Adapter
from tests.providers.contract.cases import CASES, Case, Patience, Where
from tests.providers.contract.trial import IMPATIENT, PATIENT, Trial, caller_keeps_time, trial, trial_at_no_server


class Columns:
    """Each type's cells of the matrix, filled when they are first asked for."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._patient: dict[str, Trial] = {}
        self._timed: dict[str, dict[tuple[str, bool], tuple[Outcome, int]]] = {}

    async def cell(self, adapter: Adapter, case: Case, *, streamed: bool) -> tuple[Outcome, int]:
        """How a call ended, and how many requests reached the server."""
        if case.where is not Where.SERVER:
            async with trial_at_no_server(adapter, case.where) as tried:
                return await tried.outcome(case, streamed=streamed), 1
        if case.impatient is not Patience.NOBODY:
            if adapter.type not in self._timed:
                self._timed[adapter.type] = await self._all_that_wait(adapter)
            return self._timed[adapter.type][case.name, streamed]
        tried = await self._of(adapter)
        return await tried.outcome(case, streamed=streamed), tried.requests(case, streamed=streamed)

    async def _of(self, adapter: Adapter) -> Trial:
        if adapter.type not in self._patient:
            client = await self._stack.enter_async_context(new_http_client())
            tried = await self._stack.enter_async_context(trial(adapter, timeouts=PATIENT, http_client=client))
            self._patient[adapter.type] = tried
        return self._patient[adapter.type]

    async def _all_that_wait(self, adapter: Adapter) -> dict[tuple[str, bool], tuple[Outcome, int]]:
        """All cases of time at once: one after the other they would wait for longer than all the rest takes."""
        waiting = [
            (case, streamed)
            for case in CASES
            for streamed in (False, True)
            if case.impatient is not Patience.NOBODY and adapter.expected(case, streamed=streamed)
        ]
        patient = await self._of(adapter)
        async with trial(adapter, timeouts=IMPATIENT) as impatient:

            async def fill(case: Case, streamed: bool) -> tuple[Outcome, int]:
                tried = patient if caller_keeps_time(adapter, case) else impatient
                return await tried.outcome(case, streamed=streamed), tried.requests(case, streamed=streamed)

            filled = await asyncio.gather(*(fill(case, streamed) for case, streamed in waiting))
        return {(case.name, streamed): cell for (case, streamed), cell in zip(waiting, filled, strict=True)}
