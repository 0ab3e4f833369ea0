"""A short run of `bench/chaos.py` with a fixed seed; `make chaos` is the long one. See test_chaos_redis.py too."""

from pathlib import Path

import pytest

from bench.chaos_run.rounds import Options
from tests.integration.chaos import assert_nothing_lost_and_nothing_doubled

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(240)]

FAULTS = ("kill-one-of-each", "freeze-one-of-each", "kill-everybody")
"""kill -9 of a process of each kind, and of all; SIGSTOP of a process of each kind beyond its lease, and SIGCONT."""


async def test_workers_that_die_or_sleep_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    options = Options(requests=180, faults=FAULTS, seed=7, rate=60, backlog=100, patience_seconds=60)
    await assert_nothing_lost_and_nothing_doubled(options, tmp_path)
