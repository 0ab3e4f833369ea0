"""Script calls at the same time: together in a pipeline, each with its own reply, on few connections."""

import asyncio

import pytest
from pydantic import SecretStr

from connectors.settings import RedisSettings
from connectors.state.base import FAR_FUTURE_MS, StateUnavailableError
from connectors.state.connect import connect
from connectors.state.script_runner import PIPELINE_PAYS_FROM, Argument, ScriptName, ScriptRunner
from tests.state.redis_process import RedisProcess

BORN = "{t}:born"


def runner_for(server: RedisProcess, *, timeout_seconds: float = 10.0, max_connections: int = 8) -> ScriptRunner:
    with server.client() as admin:
        admin.set(BORN, 0)
    settings = RedisSettings(timeout_seconds=timeout_seconds, max_connections=max_connections)
    client = connect(settings, SecretStr(server.url))
    return ScriptRunner(client, timeout_seconds=timeout_seconds, max_connections=max_connections)


async def refuse(runner: ScriptRunner, number: int) -> list[object]:
    reply: list[object] = await runner.run(ScriptName.REFUSE, keys(number), arguments(str(number)))
    return reply


def keys(number: int) -> tuple[str, ...]:
    return (f"{{t}}:request:{number}", BORN, "{t}:restored")


def arguments(outcome: str | bytes) -> tuple[Argument, ...]:
    return ("o", "rejected", 1, outcome, 60_000, 0, FAR_FUTURE_MS)


async def test_each_of_a_thousand_calls_at_once_gets_its_own_reply(own_redis: RedisProcess) -> None:
    """Order and pairing survive the pipeline, and a handful of connections carries them all."""
    runner = runner_for(own_redis)
    replies = await asyncio.gather(*(refuse(runner, number) for number in range(1_000)))
    assert [reply[3] for reply in replies] == [str(number).encode() for number in range(1_000)]
    with own_redis.client() as admin:
        assert int(admin.info("stats")["total_connections_received"]) < 12
    await runner.close()


async def test_one_connection_is_enough(own_redis: RedisProcess) -> None:
    """Calls wait for it rather than fail."""
    runner = runner_for(own_redis, max_connections=1)
    replies = await asyncio.gather(*(refuse(runner, number) for number in range(300)))
    assert len(replies) == 300
    await runner.close()


async def test_a_caller_that_is_cancelled_disturbs_nobody(own_redis: RedisProcess) -> None:
    """Whether it was sent, waited to be sent or shared a pipeline: the others get their own replies."""
    runner = runner_for(own_redis)
    await refuse(runner, 0)
    for round_number in range(1, 6):
        first = round_number * 1_000
        calls = [asyncio.create_task(refuse(runner, number)) for number in range(first, first + 200)]
        for _ in range(round_number):
            await asyncio.sleep(0)
        for call in calls[::3]:
            call.cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for number, answer in enumerate(answers):
            if isinstance(answer, list):
                assert answer[3] == str(first + number).encode()
            else:
                assert number % 3 == 0
                assert isinstance(answer, asyncio.CancelledError)
    await runner.close()


async def test_an_error_of_one_call_is_not_that_of_its_neighbours(own_redis: RedisProcess) -> None:
    """A script that fails on a key of the wrong type fails alone."""
    with own_redis.client() as admin:
        admin.set("{t}:request:7", "not a hash")
    runner = runner_for(own_redis)
    await refuse(runner, 1_000)
    answers = await asyncio.gather(*(refuse(runner, number) for number in range(100)), return_exceptions=True)
    failed = [number for number, answer in enumerate(answers) if isinstance(answer, BaseException)]
    assert failed == [7]
    assert isinstance(answers[7], StateUnavailableError)
    assert "WRONGTYPE" in answers[7].reason
    await runner.close()


@pytest.mark.parametrize("turns", [1, 2, 5], ids=["unsent", "sending", "sent"])
async def test_closing_ends_the_calls_that_wait(own_redis: RedisProcess, turns: int) -> None:
    """They are told that the store is away, and do not wait for their timeout."""
    runner = runner_for(own_redis, timeout_seconds=600.0)
    await refuse(runner, 0)
    own_redis.freeze()
    calls = [asyncio.create_task(refuse(runner, number)) for number in range(100)]
    for _ in range(turns):
        await asyncio.sleep(0)
    await runner.close()
    own_redis.thaw()
    async with asyncio.timeout(60):
        answers = await asyncio.gather(*calls, return_exceptions=True)
    told = [answer for answer in answers if getattr(answer, "reason", None) == "the store was closed"]
    assert len(told) >= len(calls) - PIPELINE_PAYS_FROM
    assert all(isinstance(answer, StateUnavailableError) for answer in told)


async def test_a_call_can_be_large(own_redis: RedisProcess) -> None:
    """Outcomes of megabytes go through, beside small calls."""
    runner = runner_for(own_redis)
    large = [bytes([number]) * 4_000_000 for number in range(8)]
    replies = await asyncio.gather(
        *(runner.run(ScriptName.REFUSE, keys(number), arguments(large[number])) for number in range(8)),
        *(refuse(runner, number) for number in range(100, 200)),
    )
    assert [reply[3] for reply in replies[:8]] == large
    await runner.close()


async def test_nothing_answers_at_the_address(own_redis: RedisProcess) -> None:
    """The error names the script and says that the connection was refused."""
    runner = runner_for(own_redis)
    own_redis.stop()
    with pytest.raises(StateUnavailableError, match=r"^refuse: .*(refused|Connect call failed)"):
        await refuse(runner, 1)
    await runner.close()


async def test_the_first_calls_of_a_cluster_go_to_the_nodes_that_have_their_slots(
    own_cluster: list[RedisProcess],
) -> None:
    """All at once, while the client does not know the nodes yet. None is sent away, and no connection is closed."""
    settings = RedisSettings(mode="cluster", timeout_seconds=10)
    runner = ScriptRunner(
        connect(settings, SecretStr(own_cluster[0].url)), timeout_seconds=10, max_connections=settings.max_connections
    )
    await asyncio.gather(*(runner.run(ScriptName.EXCHANGE, (f"{{{number}}}:v",)) for number in range(60)))
    await runner.close()
    for node in own_cluster:
        with node.client() as admin:
            assert "errorstat_MOVED" not in admin.info("errorstats")
