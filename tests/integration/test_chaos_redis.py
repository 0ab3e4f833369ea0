"""A Redis that dies, loses everything or answers nobody, under load. A file of its own, to run beside test_chaos.py."""

from pathlib import Path

import pytest

from bench.chaos_run.rounds import Options
from tests.integration.chaos import assert_nothing_lost_and_nothing_doubled

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(240)]

FAULTS = ("redis-kill", "provider-flapping", "redis-flush", "redis-pause")


async def test_a_redis_that_fails_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    options = Options(requests=240, faults=FAULTS, seed=7, rate=60, backlog=100, patience_seconds=60)
    await assert_nothing_lost_and_nothing_doubled(options, tmp_path)
