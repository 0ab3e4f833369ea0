"""Fixtures of the contract."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.providers.contract.columns import Columns


@pytest.fixture(scope="session")
async def columns() -> AsyncIterator[Columns]:
    async with AsyncExitStack() as stack:
        yield Columns(stack)
