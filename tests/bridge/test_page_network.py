"""The page over a network that swallows everything, while the bridge goes on: in a real Chromium."""

import asyncio
from typing import Self

import pytest
from bridge_support import Kafka, Watched, delta, serving, status_event
from page_support import SEE_FRAMES, is_live, live_hub, row
from playwright.async_api import expect

from schemas.vocabulary import State
from websocket_bridge.resuming import DELTAS, STATUS

pytestmark = pytest.mark.browser

UNTIL_NOTICED_MS = 30_000


class Network:
    """A relay before the bridge. While it is `dead` nothing gets through, and nobody is told so."""

    def __init__(self, port: int) -> None:
        self._bridge_port = port
        self._alive = asyncio.Event()
        self._alive.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"

    def die(self) -> None:
        self._alive.clear()

    def revive(self) -> None:
        self._alive.set()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._bridge_port)
        for source, target in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._pump(source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._alive.wait()
                target.write(data)
        finally:
            target.close()


async def test_a_dead_network_is_noticed_and_nothing_of_the_meantime_is_missed_or_doubled(watched: Watched) -> None:
    """The page says since when what it shows is old; back on, it resumes: every piece and every state once."""
    hub, metrics = live_hub()
    kafka, page = Kafka(), watched.page
    kafka.begin(hub)

    def move(version: int, state: State) -> None:
        hub.on_status(status_event("req-1", state, version, attempt=1), kafka.spot(STATUS))
        hub.flush()

    def say(*seqs: int) -> None:
        for seq in seqs:
            hub.on_delta(delta("req-1", seq, f"{seq} "), kafka.spot(DELTAS))
        hub.flush()

    move(2, State.PROCESSING)
    async with serving(hub, metrics) as server, Network(server.port) as network:
        await page.add_init_script(SEE_FRAMES)
        await page.goto(f"{network.url}#open=req-1")
        await is_live(page)
        say(0, 1)
        text = page.locator("#stream-text")
        await expect(text).to_have_text("0 1 ")
        network.die()
        await page.context.set_offline(True)
        say(2, 3)
        await expect(page.get_by_role("status")).to_have_text("Offline, reconnecting", timeout=UNTIL_NOTICED_MS)
        await expect(page.get_by_role("alert")).to_contain_text("What you see is as of")
        await expect(page).to_have_title("Not connected · Sluice")
        await expect(text).to_have_text("0 1 ")
        say(4)
        move(3, State.COMPLETED)
        network.revive()
        await page.context.set_offline(False)
        await is_live(page)
        await expect(text).to_have_text("0 1 2 3 4 ")
        await expect(row(page, "req-1")).to_contain_text("Completed")
        await expect(page.get_by_role("alert")).to_be_hidden()
        await expect(page).to_have_title("Sluice")
        resumed = [frame for frame in await page.evaluate("frames_seen") if frame["type"] == "resumed"]
    assert [answer["recovered"] for answer in resumed] == [True]


async def test_an_event_source_of_a_browser_resumes_by_itself(watched: Watched) -> None:
    """The fallback for networks that break WebSockets: cut off, it comes back with its last id, and misses nothing."""
    hub, metrics = live_hub()
    kafka, page = Kafka(), watched.page
    kafka.begin(hub)
    hub.on_status(status_event("req-1", State.PROCESSING, 2, attempt=1), kafka.spot(STATUS))
    async with serving(hub, metrics) as server:
        port = server.port
        await page.goto(f"{server.url}favicon.svg")  # a page of the bridge's own, without its application
        await page.evaluate(
            """() => {
                window.told = [];
                window.source = new EventSource("/events?request_ids=req-1&deltas=true");
                source.onmessage = ({ data }) => told.push(JSON.parse(data));
            }"""
        )
        told = await page.evaluate_handle("told")

        async def has_told(kind: str, count: int = 1) -> None:
            async with asyncio.timeout(30):
                while (
                    await told.evaluate("(told, kind) => told.filter(({ type }) => type === kind).length", kind) < count
                ):
                    await asyncio.sleep(0.05)

        await has_told("snapshot")
        hub.on_delta(delta("req-1", 0, "one "), kafka.spot(DELTAS))
        hub.flush()
        await has_told("delta")
    hub.on_delta(delta("req-1", 1, "two "), kafka.spot(DELTAS))
    hub.on_status(status_event("req-1", State.COMPLETED, 3, attempt=1), kafka.spot(STATUS))
    async with serving(hub, metrics, port=port):
        await has_told("status")
        frames = await told.json_value()
    (answer,) = [frame for frame in frames if frame["type"] == "resumed"]
    assert (answer["recovered"], answer["events"]) == (True, 2)
    assert [frame["text"] for frame in frames if frame["type"] == "delta"] == ["one ", "two "]
    assert [frame["event"]["state_version"] for frame in frames if frame["type"] == "status"] == [3]
