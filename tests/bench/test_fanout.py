"""The instruments of the fan-out benchmark: ratios of ways that took turns, ears that count, and a whole small run."""

import asyncio
import json
import time
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from websockets.asyncio.server import ServerConnection, serve

from bench.fanout_run.child import Child, ChildError
from bench.fanout_run.ears import Ears, made_now
from bench.fanout_run.measure import Options, measure
from bench.fanout_run.report import show
from bench.fanout_run.results import Block, Broadcasts, Memory, Pushes, Report
from bench.fanout_run.sockets import Clients
from bench.fanout_run.ways import BRIDGE, FLOOR, HOP
from bench.measuring import OthersMeter, paced
from connectors.settings import Settings


def block(milliseconds: float, *, cpu_seconds: float = 0.0, others_percent: float = 0.0) -> Block:
    """Ten events that all took as long."""
    took = [round(milliseconds * 1000)] * 10
    return Block(microseconds=took, deliveries=10, cpu_seconds=cpu_seconds, others_percent=others_percent)


def pushes(*rounds: tuple[float, float, float], clients: int = 1_000, rate: float = 500) -> Pushes:
    """Of each round the milliseconds of floor, hop and bridge."""
    found = Pushes(clients=clients, rate=rate)
    for values in rounds:
        for way, value in zip((FLOOR, HOP, BRIDGE), values, strict=True):
            found.add(way, block(value))
    return found


def broadcasts(*rounds: tuple[float, float]) -> Broadcasts:
    """Of each round the milliseconds of bare server and bridge."""
    found = Broadcasts(clients=5_000)
    for floor, bridge in rounds:
        found.add(FLOOR, block(floor))
        found.add(BRIDGE, block(bridge))
    return found


def test_the_ratio_is_the_median_of_the_rounds() -> None:
    """One round in which the machine was busy moves the most, not the median."""
    ratio = pushes((0.1, 0.9, 1.5), (0.1, 0.9, 9.0), (0.5, 1.5, 2.0)).ratio
    assert (ratio.median, ratio.least, ratio.most) == (1.5, 1.0, 9.0)
    assert str(ratio) == "1.50x (1.00-9.00)"


def test_a_machine_that_slows_everything_down_leaves_the_ratio_as_it_is() -> None:
    """That is why the ways take turns."""
    assert pushes((0.1, 0.9, 1.5)).ratio == pushes((1.0, 9.0, 15.0)).ratio
    assert broadcasts((50, 60)).ratio == broadcasts((500, 600)).ratio


def test_aims_are_judged_only_where_they_were_measured() -> None:
    """Each has its number of connections, and its rate."""
    met = Report(
        memory=[Memory(clients=10_000, bytes_per_connection={FLOOR: 14_000, BRIDGE: 19_999})],
        pushes=[pushes((0.1, 0.9, 1.9)), pushes((0.1, 0.9, 9.0), rate=2000), pushes((0.1, 0.9, 9.0), clients=5_000)],
        broadcasts=[broadcasts((50, 70))],
    )
    assert [aim.is_met for aim in met.aims] == [True, True, True]
    missed = Report(
        memory=[Memory(clients=10_000, bytes_per_connection={FLOOR: 14_000, BRIDGE: 20_001})],
        pushes=[pushes((0.1, 0.9, 2.1))],
        broadcasts=[broadcasts((50, 80))],
    )
    assert [aim.is_met for aim in missed.aims] == [False, False, False]
    assert Report(pushes=[pushes((0.1, 0.9, 9.0), rate=2000)]).aims == []


def test_cpu_is_per_thousand_deliveries() -> None:
    """5 ms and 15 ms for ten deliveries each are 1,000 ms for a thousand."""
    found = Broadcasts(clients=5)
    found.add(FLOOR, block(1, cpu_seconds=0.005))
    found.add(FLOOR, block(1, cpu_seconds=0.015))
    assert found.cpu_ms_per_1000(FLOOR) == 1000.0


def test_a_report_can_be_read_by_people_and_by_programs() -> None:
    """Every figure is in both."""
    report = Report(
        memory=[Memory(clients=5_000, bytes_per_connection={FLOOR: 14_000, BRIDGE: 15_432})],
        pushes=[pushes((0.1, 0.9, 1.5))],
        broadcasts=[broadcasts((50, 70))],
    )
    out = StringIO()
    show(report, Console(file=out, width=130))
    for figure in ("15,432", "1.50x", "1.40x", "70.0", "met"):
        assert figure in out.getvalue()
    found = json.loads(json.dumps(report.figures, default=asdict))
    assert found["pushes"][0]["p95_ratio"]["median"] == 1.5
    assert found["pushes"][0]["ways"][BRIDGE]["latency_ms"]["p99"] == 1.5
    assert [aim["is_met"] for aim in found["aims"]] == [True, True]


async def test_ears_tell_when_the_last_listener_had_an_event() -> None:
    """Answers and other frames without a moment do not count."""
    ears = Ears()
    ears.hear(b'{"message":"made at 10.0000000 s"}', 10.001)
    ears.hear(b'{"message":"made at 10.0000000 s"}', 10.003)
    ears.hear(b'{"type":"position"}', 10.004)
    ears.hear(b'{"message":"made at 11.0000000 s"}', 11.002)
    assert sorted(await ears.heard(3)) == [2000, 3000]
    ears.listen()
    ears.hear(made_now().encode(), time.monotonic())
    assert len(await ears.heard(1)) == 1


async def test_clients_hear_frames_however_they_are_cut() -> None:
    """Large and small frames, pings between them, in pieces of any size."""
    shook = asyncio.Event()

    async def handler(connection: ServerConnection) -> None:
        shook.set()
        await connection.ping()
        for size in (0, 200, 70_000):
            await connection.send(f"{made_now()} {'x' * size}")
        await connection.wait_closed()

    async with serve(handler, "127.0.0.1", 0, compression=None) as server:
        clients = Clients(server.sockets[0].getsockname()[1], "/")
        assert await clients.answer({"ask": "connect", "count": 2}) == {"lost": 0}
        heard = await clients.answer({"ask": "heard", "deliveries": 6})
        assert len(heard["microseconds"]) == 6
        server.close()
        while (await clients.answer({"ask": "count"}))["lost"] < 2:
            await asyncio.sleep(0.01)


async def test_a_child_that_ends_is_an_error_and_no_wait() -> None:
    """The hop's listener ends at once with no topic to listen to."""
    async with Child("bench.fanout_run.hop") as child:
        with pytest.raises(ChildError, match=r"fanout_run\.hop ended"):
            await child.ask("listen")


async def test_paced_numbers_are_not_ahead_of_their_time() -> None:
    """Ten at 200 a second: the last is due after 45 ms."""
    began = time.monotonic()
    assert [number async for number in paced(200, 10)] == list(range(10))
    assert time.monotonic() - began >= 0.045


def test_the_cpu_of_others_is_between_nothing_and_the_machine() -> None:
    """Of no processes of ours, all that is spent is others'."""
    meter = OthersMeter([])
    meter.start()
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    assert 0 < meter.stop() <= 100


@pytest.mark.integration
async def test_a_small_run_measures_all_three_ways(stack_settings: Settings, tmp_path: Path) -> None:
    """Twenty connections, few events: every event is heard, by one client or by all."""
    said: list[str] = []
    options = Options(clients=[20], rates=[100], blocks=2, seconds=0.5)
    report = await measure(stack_settings, options, tmp_path, said.append)
    (found,), (to_all,) = report.pushes, report.broadcasts
    assert {way: sum(len(b.microseconds) for b in blocks) for way, blocks in found.blocks.items()} == dict.fromkeys(
        (FLOOR, HOP, BRIDGE), 100
    )
    counted: dict[str, Any] = {way: [b.deliveries for b in blocks] for way, blocks in to_all.blocks.items()}
    assert counted == {FLOOR: [100, 100], BRIDGE: [100, 100]}
    assert found.cpu_ms_per_1000(BRIDGE) > 0
    assert any("2 of 2" in line for line in said)
