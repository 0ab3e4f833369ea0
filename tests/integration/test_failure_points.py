"""Each crash window of a lane, killed on purpose in a real process: one end, and no call that is not on record."""

import asyncio
from pathlib import Path

import pytest

from connectors.kafka.topics_admin import create_topics
from connectors.settings import Settings
from schemas import LLMRequest
from schemas.request import Message
from schemas.vocabulary import Role, State
from sluice.role_process import RoleProcess
from tests.integration.failing_role import POINTS
from tests.integration.system import System

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(150)]

CALLS_AND_FLAGS = {
    "before_claim": (1, 0),
    # The lease says that a call may have been made, and nobody is left to say that it was not.
    "after_claim": (1, 1),
    "during_call": (2, 1),
    "answer_received": (2, 1),
    "outcome_stored": (1, 0),
    "result_published": (1, 0),
    "status_published": (1, 0),
    "before_commit": (1, 0),
    # Two calls: the first one failed, and is tried again.
    "retry_stored": (2, 0),
    "retry_published": (2, 0),
}


def lane_of(point: str) -> str:
    return point.replace("_", "-")


def victim_of(point: str) -> LLMRequest:
    metadata = {"simulated.fail": "overloaded", "simulated.fail_attempts": "1"} if point.startswith("retry") else {}
    return LLMRequest(
        request_id=point,
        provider=lane_of(point),
        messages=[Message(role=Role.USER, content="x")],
        stream=True,
        metadata=metadata,
    )


async def test_every_crash_window_of_a_lane(stack_settings: Settings, tmp_path: Path) -> None:
    """One lane for each point, whose only worker dies there and is replaced by one that does not."""
    assert set(CALLS_AND_FLAGS) == set(POINTS)
    options = {"SLUICE_RETRY__BASE_SECONDS": "0.01", "SLUICE_RETRY__FACTOR": "1"}
    system = System(settings=stack_settings, folder=tmp_path, options=options)
    catalogue = [
        f'[providers.{lane_of(point)}]\ntype = "simulated"\nmodels = ["reading-ease-1"]\nlocal = true\n'
        f'[providers.{lane_of(point)}.options]\njournal_path = "{system.journal_path}"\nfirst_token_ms = 20\n'
        for point in POINTS
    ]
    (tmp_path / "providers.toml").write_text("\n".join(catalogue))
    await create_topics(stack_settings, stack_settings.topics.specs([lane_of(point) for point in POINTS]))
    try:
        await asyncio.gather(system.start("intake"), system.start("control"))
        await system.send([victim_of(point) for point in POINTS])
        # Five at a time: a start takes a second of a core.
        for points in (POINTS[:5], POINTS[5:]):
            failing = [spawn_failing(system, point) for point in points]
            assert await asyncio.gather(*(asyncio.to_thread(role.process.wait, 60) for role in failing)) == [-9] * 5
            await asyncio.gather(*(system.start("lane", lane_of(point)) for point in points))
        outcome = await system.ended(list(POINTS), timeout_seconds=60)
    finally:
        await asyncio.gather(*(role.stop() for role in system.roles if role.process.poll() is None))
    outcome.assert_each_ended_once(POINTS)
    outcome.assert_extra_calls_are_flagged()
    for point, (calls, flags) in CALLS_AND_FLAGS.items():
        result = outcome.result(point)
        assert result.status is State.COMPLETED, point
        assert (outcome.starts()[point], result.possibly_billed_calls) == (calls, flags), point


def spawn_failing(system: System, point: str) -> RoleProcess:
    role = RoleProcess(
        "lane",
        lane_of(point),
        environment={**system.environment, "FAIL_POINT": point},
        log_path=system.folder / f"failing-{point}.log",
        module="tests.integration.failing_role",
    )
    system.roles.append(role)
    return role
