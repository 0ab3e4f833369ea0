"""A well-behaved server of chat completions that remembers what it was asked, for tests of what is sent where."""

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

ANSWER = "Two words."
USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request, as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(kw_only=True)
class ChatServer:
    """What it answers can be changed while it runs: `status` and `reply` for all, `headers` besides."""

    url: str = ""
    address: tuple[str, int] = ("", 0)
    connections: set[object] = field(default_factory=set)
    status: int = 200
    reply: dict[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.connections.add(request.protocol)
        body = await request.json() if request.can_read_body else {}
        self.asked.append(
            Asked(
                method=request.method,
                path=request.path,
                query=dict(request.query),
                headers={name.lower(): value for name, value in request.headers.items()},
                body=body,
            )
        )
        if self.reply is not None or self.status != 200:
            return web.json_response(self.reply or {}, status=self.status, headers=self.headers)
        if body.get("stream"):
            return await self._stream(request)
        return web.json_response(completion(), headers=self.headers)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **self.headers})
        await response.prepare(request)
        for data in (*(json.dumps(chunk) for chunk in chunks()), "[DONE]"):
            await response.write(f"data: {data}\n\n".encode())
        return response


def completion(text: str = ANSWER) -> dict[str, Any]:
    """A chat completion."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": "served", "choices": [choice], "usage": USAGE}


def chunks() -> list[dict[str, Any]]:
    """The same as a stream."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "served"}
    pieces = [{"index": 0, "delta": {"content": piece}, "finish_reason": None} for piece in ("Two ", "words.")]
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    return [*({**head, "choices": [choice]} for choice in (*pieces, end)), {**head, "choices": [], "usage": USAGE}]


@asynccontextmanager
async def chat_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[ChatServer]:
    """Runs on a free port of 127.0.0.1 until the block ends."""
    server = ChatServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.address = (host, port)
    server.url = f"{'https' if tls else 'http'}://{host}:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()
