"""Any order of steps: the same answers in memory and in Redis, one end a life, exact counts, growing versions."""

import asyncio
from collections.abc import Callable, Collection

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from connectors.settings import RedisSettings
from tests.state.twins import Twins
from tests.state.worlds import MemoryWorld, RedisWorld

WEIGHTS = {
    "admit": 6, "refuse": 1, "claim": 8, "renew": 2, "release": 2, "settle": 3, "reschedule": 4, "requeue": 4,
    "see": 2, "end": 2, "confirm_what_is_not_known": 1, "confirm_what_ended": 2, "cancel": 2, "forbid": 2,
    "let_leases_lapse": 3, "lose": 1, "flush": 2, "adopt": 3, "restore": 5,
}  # fmt: skip
STEPS = st.lists(
    st.tuples(
        st.sampled_from([step for step, weight in WEIGHTS.items() for _ in range(weight)]), st.integers(0, 9_999)
    ),
    min_size=60,
    max_size=120,
)

WITHOUT_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
"""Over Redis it would take longer than a test may."""


@pytest.mark.parametrize("kind", ["memory", "redis", "cluster"])
def test_stores_answer_alike_and_keep_what_they_promise(kind: str, request: pytest.FixtureRequest) -> None:
    """In many random lives. The memory store's own twin is there to find quickly what both do wrong."""
    with asyncio.Runner() as runner:
        if kind == "memory":
            check(lambda: Twins(runner, MemoryWorld()), max_examples=150)
            return
        url = request.getfixturevalue("redis_url" if kind == "redis" else "cluster_url")
        mode = RedisSettings(timeout_seconds=30, mode="single" if kind == "redis" else "cluster")
        world = runner.run(made(mode, url))

        def twins() -> Twins:
            runner.run(world.begin_anew())
            return Twins(runner, world)

        check(twins, max_examples=40 if kind == "redis" else 15, phases=WITHOUT_SHRINKING)
        runner.run(world.close())


def check(twins: Callable[[], Twins], *, max_examples: int, phases: Collection[Phase] = tuple(Phase)) -> None:
    @settings(max_examples=max_examples, deadline=None, phases=phases)
    @given(STEPS)
    def run(steps: list[tuple[str, int]]) -> None:
        pair = twins()
        for step, seed in steps:
            pair.make(step, seed)

    run()


async def made(mode: RedisSettings, url: str) -> RedisWorld:
    return RedisWorld(mode, url)
