"""How fast a client may command: what comes faster is read later, and nothing is refused for it."""

import asyncio
import json

from bridge_support import HubOptions, connected, make_hub, serving
from hypothesis import given
from hypothesis import strategies as st

from websocket_bridge.pace import BURST_SECONDS, Pace


@given(
    pauses=st.lists(st.floats(0, 10), min_size=1, max_size=100),
    rate=st.floats(0.1, 100),
)
def test_in_any_time_no_more_is_carried_out_than_the_rate_and_one_burst(pauses: list[float], rate: float) -> None:
    """Commands come after pauses of any length, and wait as they are told; a quiet client never waits."""
    pace, now = Pace(), 1_000.0
    carried_out: list[float] = []
    for pause in pauses:
        now += pause
        delay = pace.delay_seconds(rate=rate, now=now)
        if pause >= BURST_SECONDS + 1 / rate:
            assert delay <= max(0.0, 1 / rate - BURST_SECONDS) + 1e-6
        now += delay
        carried_out.append(now)
    for first, since in enumerate(carried_out):
        for last in range(first, len(carried_out)):
            allowed = rate * (carried_out[last] - since + BURST_SECONDS) + 1
            assert last - first + 1 <= allowed + 1e-6


async def test_commands_beyond_the_rate_wait_their_turn_and_are_all_answered() -> None:
    """In order, each once; what is beyond the burst takes its time, and the connection stays."""
    rate, beyond = 100.0, 30
    commands = int(rate * BURST_SECONDS) + beyond
    hub, metrics, _ = make_hub(HubOptions(more={"commands_per_second": rate}))
    async with serving(hub, metrics) as server, connected(server) as client:
        began = asyncio.get_running_loop().time()
        for number in range(commands):
            await client.connection.send(json.dumps({"id": number, "type": "ping"}))
        await client.push("hello")
        answers = [json.loads(await client.connection.recv())["id"] for _ in range(commands)]
        took_at_least = asyncio.get_running_loop().time() - began
    assert answers == list(range(commands))
    assert took_at_least >= beyond / rate - 0.001
