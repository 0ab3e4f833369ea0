"""What the short chaos runs have in common."""

from pathlib import Path

from bench.chaos_run.rounds import Options, run


async def assert_nothing_lost_and_nothing_doubled(options: Options, folder: Path) -> None:
    """Each kind of finding has a test of its own in tests/bench: here none is found."""
    outcome = await run(options, on_progress=print, folder=folder)
    assert outcome.verdict.findings == {}
    assert outcome.accidents == []
    assert outcome.verdict.ends == {1: options.requests}
    assert outcome.verdict.results == {1: options.requests}
    # A run in which nothing was called twice has not been disturbed.
    assert outcome.verdict.counts["attempts lost"] > 0
