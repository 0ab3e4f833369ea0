"""A provider that speaks OpenAI's chat completions, and keeps a journal of every call that reached it.

    python -m bench.chaos_run.provider NAME PORT NETWORK_PORT JOURNAL SEED

Calls come to NETWORK_PORT, through the proxy of `network.py`. `POST /weather` on PORT says what they meet from now on
(the fields of `Weather`), `GET /calls` how many there were. It ends when its standard input does.

The journal has two lines a call, as JSON: `begun` when the whole request has come, and `ended` with what was sent: a
status, or `cut` (we broke it off), or `gone` (the caller did). Each line is one write to a file opened for appending:
it is with the kernel before the call goes on, and outlives a kill -9 of anybody.
"""

import asyncio
import json
import os
import random
import re
import sys
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import web

from bench.chaos_run.load import MODEL
from bench.chaos_run.network import Network, Proxy

_MARK = re.compile(r"\[\[(\S+) (\d+)\]\]")
_STREAM_PIECES = 5
_ERRORS = (429, 429, 500, 503)
RETRY_AFTER_SECONDS = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Weather:
    """What calls meet: shares of all calls, and by how much each takes longer."""

    errors: float = 0.0
    cuts: float = 0.0
    slowness: float = 1.0
    network: Network = Network.OPEN

    def __str__(self) -> str:
        """What of it is not as usual."""
        usual = Weather()
        told = [f"{name} {value}" for name, value in self.as_json().items() if value != getattr(usual, name)]
        return ", ".join(told) or "as usual"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Journal:
    """Appends lines, one write each."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, **line: object) -> None:
        os.write(self._descriptor, json.dumps({**line, "time": time.time()}).encode() + b"\n")


class ChaosProvider:
    """The HTTP side. Answers quote the request and the call, so that a wrong answer can be told."""

    def __init__(self, name: str, journal: Journal, proxy: Proxy, *, seed: int) -> None:
        self._name = name
        self._journal = journal
        self._proxy = proxy
        self._dice = random.Random(f"{name}-{seed}")
        self._weather = Weather()
        self._calls = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/weather", self._change_weather)
        app.router.add_get("/calls", self._count_calls)
        return app

    async def _count_calls(self, _request: web.Request) -> web.Response:
        return web.Response(text=f"{self._calls}")

    async def _change_weather(self, request: web.Request) -> web.Response:
        given = await request.json()
        self._weather = Weather(**{**given, "network": Network(given["network"])})
        self._proxy.set(self._weather.network)
        return web.Response()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        mark = _MARK.search(body["messages"][-1]["content"])
        if mark is None:
            return web.json_response({"error": {"message": "no mark in the prompt"}}, status=400)
        request_id, take_ms = mark.group(1), int(mark.group(2))
        self._calls += 1
        call_id = f"{self._name}-{self._calls}"
        self._journal.write(event="begun", call=call_id, provider=self._name, request=request_id)
        ended: int | str = "gone"
        try:
            ended, response = await self._answer(request, body, call_id, request_id, take_ms)
        finally:
            self._journal.write(event="ended", call=call_id, status=ended)
        return response

    async def _answer(
        self, request: web.Request, body: dict[str, Any], call_id: str, request_id: str, take_ms: int
    ) -> tuple[int | str, web.StreamResponse]:
        weather, luck = self._weather, self._dice.random()
        headers = {"x-request-id": call_id}
        if luck < weather.errors:
            return self._error(headers)
        is_cut = luck < weather.errors + weather.cuts
        seconds = take_ms / 1000 * weather.slowness
        text = _answer_text(body, call_id, request_id)
        if body.get("stream"):
            response = await _stream(request, text, call_id, headers, seconds=seconds, is_cut=is_cut)
            return ("cut" if is_cut else 200), response
        await asyncio.sleep(seconds)
        if is_cut:
            _cut(request)
            return "cut", web.Response()
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return 200, web.json_response(_completion(call_id, [choice], usage=True), headers=headers)

    def _error(self, headers: dict[str, str]) -> tuple[int, web.Response]:
        status = self._dice.choice(_ERRORS)
        if status == 429:
            headers = {**headers, "retry-after": str(RETRY_AFTER_SECONDS)}
        return status, web.json_response({"error": {"message": "bad weather"}}, status=status, headers=headers)


def _answer_text(body: dict[str, Any], call_id: str, request_id: str) -> str:
    text = f"This answers {request_id} by call {call_id}."
    if "response_format" not in body:
        return text
    verdict = {"winner": "Essay A", "justification": f"{text} Shorter sentences read better.", "confidence": 4.0}
    return json.dumps(verdict)


def _completion(call_id: str, choices: list[dict[str, Any]], *, usage: bool, chunk: bool = False) -> dict[str, Any]:
    completion: dict[str, Any] = {
        "id": call_id,
        "object": "chat.completion.chunk" if chunk else "chat.completion",
        "created": int(time.time()),
        "model": MODEL,
        "choices": choices,
    }
    if usage:
        completion["usage"] = {"prompt_tokens": 20, "completion_tokens": 12, "total_tokens": 32}
    return completion


async def _stream(
    request: web.Request, text: str, call_id: str, headers: dict[str, str], *, seconds: float, is_cut: bool
) -> web.StreamResponse:
    response = web.StreamResponse(headers={**headers, "content-type": "text/event-stream"})
    await response.prepare(request)

    async def send(choices: list[dict[str, Any]], *, usage: bool = False) -> None:
        line = json.dumps(_completion(call_id, choices, usage=usage, chunk=True))
        await response.write(f"data: {line}\n\n".encode())

    size = -(-len(text) // _STREAM_PIECES)
    for start in range(0, len(text), size):
        await asyncio.sleep(seconds / _STREAM_PIECES)
        if is_cut and start > 0:
            _cut(request)
            return response
        await send([{"index": 0, "delta": {"content": text[start : start + size]}, "finish_reason": None}])
    await send([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    await send([], usage=True)
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


def _cut(request: web.Request) -> None:
    if isinstance(request.transport, asyncio.Transport):
        request.transport.abort()


async def _serve(name: str, port: int, network_port: int, journal_path: str, seed: int) -> None:
    proxy = Proxy(port=network_port, upstream_port=port)
    provider = ChaosProvider(name, Journal(journal_path), proxy, seed=seed)
    # A call whose caller goes away is noticed at once, and its journal line says when.
    runner = web.AppRunner(provider.app(), handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await proxy.start()
    loop, over = asyncio.get_running_loop(), asyncio.Event()

    def until_stdin_closes() -> None:
        while os.read(0, 1024):
            pass
        loop.call_soon_threadsafe(over.set)

    threading.Thread(target=until_stdin_closes, daemon=True).start()
    await over.wait()
    await proxy.close()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5])))
