"""A small OAuth 2.0 token endpoint that gives out unsecured JSON Web Signatures, and remembers who asked."""

import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from aiohttp import web

CLIENT_ID, CLIENT_SECRET = "sluice", "s3cr3t/+ü"


@dataclass(kw_only=True)
class TokenServer:
    """What it answers can be changed while it runs."""

    url: str = ""
    lifetime_seconds: float = 300
    audience_name: str = "sluice"
    answer: web.Response | None = None
    requests: list[dict[str, str]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.requests.append(form)
        if self.answer is not None:
            return web.Response(status=self.answer.status, body=self.answer.body, headers=self.answer.headers)
        identity = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
        if [unquote_plus(part) for part in identity.split(":")] != [CLIENT_ID, CLIENT_SECRET]:
            return web.json_response({"error": "invalid_client"}, status=401)
        token = unsecured_token(subject=self.audience_name, lifetime_seconds=self.lifetime_seconds)
        return web.json_response({"access_token": token, "expires_in": self.lifetime_seconds, "token_type": "bearer"})


@asynccontextmanager
async def token_server() -> AsyncIterator[TokenServer]:
    """Runs on a free port of 127.0.0.1 until the block ends."""
    server = TokenServer()
    app = web.Application()
    app.router.add_post("/token", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}/token"
    try:
        yield server
    finally:
        await runner.cleanup()


def unsecured_token(*, subject: str, lifetime_seconds: float) -> str:
    """RFC 7515, appendix A.5: no signature, for development only."""
    now = time.time()
    parts = ({"alg": "none"}, {"sub": subject, "iat": now, "exp": now + lifetime_seconds})
    return ".".join([*(_base64(json.dumps(part)) for part in parts), ""])


def _base64(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
