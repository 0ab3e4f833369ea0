"""The soak of `make soak`, for two minutes."""

from pathlib import Path

import pytest

from bench.soak import soak
from connectors.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

SECONDS = 120.0


async def test_churn_slow_readers_and_nonsense_cost_nobody_an_end(stack_settings: Settings, tmp_path: Path) -> None:
    """Memory is flat, steady clients are told every end once, and the log has nothing to complain of."""
    report = await soak(stack_settings, SECONDS, tmp_path)
    assert report.problems == []
    assert report.requests > 0
    assert report.connections > 0
    assert report.fuzzed > 0
