"""Fixtures of the contract."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx2
import pytest

from connectors.providers.http_client import new_http_client
from tests.providers.contract.adapters import ADAPTERS
from tests.providers.contract.columns import Columns
from tests.providers.contract.trial import Trial, trial


@pytest.fixture(scope="session")
async def columns() -> AsyncIterator[Columns]:
    """The matrix, filled as it is asked for."""
    async with AsyncExitStack() as stack:
        yield Columns(stack)


@pytest.fixture(scope="session")
async def http_client() -> AsyncIterator[httpx2.AsyncClient]:
    """One for all, as in a worker."""
    async with new_http_client() as client:
        yield client


@pytest.fixture(params=[pytest.param(adapter, id=adapter.type) for adapter in ADAPTERS if adapter.wire])
async def tried(request: pytest.FixtureRequest, http_client: httpx2.AsyncClient) -> AsyncIterator[Trial]:
    """A trial of each type that calls a server. Whoever asks for it is run once a type."""
    async with trial(request.param, http_client=http_client) as started:
        yield started
