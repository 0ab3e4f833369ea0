"""A short run of `bench/chaos.py` with a fixed seed: the long one is `make chaos`."""

from pathlib import Path

import pytest

from bench.chaos_run.rounds import Options, run

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(240)]

FAULTS = ("provider-flapping", "freeze-lane", "kill-everybody")


async def test_three_faults_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    """Each kind of finding has a test of its own in tests/bench: here none is found."""
    options = Options(requests=300, faults=FAULTS, seed=7, rate=60, backlog=100, patience_seconds=60)
    outcome = await run(options, on_progress=lambda _: None, folder=tmp_path)
    assert outcome.verdict.findings == {}
    assert outcome.accidents == []
    assert sum(outcome.verdict.states.values()) == 300
    # A run in which nothing was called twice has not been disturbed.
    assert outcome.verdict.counts["attempts lost"] > 0
