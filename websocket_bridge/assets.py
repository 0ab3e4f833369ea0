"""The files of the page and of the browser client, held in memory, with headers that let the page do nothing else."""

import hashlib
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from websockets.datastructures import Headers
from websockets.http11 import Response

PAGE_FOLDER = Path(__file__).parent / "page"
CLIENT_PATH = "/client/"
PACKAGED_CLIENT = Path(__file__).parent / "client"
"""Where the wheel has the client of `clients/js`, which has a package of its own."""
CHECKOUT_CLIENT = Path(__file__).parents[1] / "clients" / "js"

_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file. `is_shared`: pages of other origins may import it."""

    body: bytes
    content_type: str
    etag: str
    is_shared: bool = False


def load_assets() -> dict[str, Asset]:
    """URL path to file. The page itself is at `/`, the browser client below `/client/`."""
    assets = {f"/{path.relative_to(PAGE_FOLDER).as_posix()}": path for path in PAGE_FOLDER.rglob("*")}
    assets["/"] = assets.pop("/index.html")
    loaded = {url: _load(path) for url, path in sorted(assets.items()) if path.suffix in _CONTENT_TYPES}
    client = PACKAGED_CLIENT if PACKAGED_CLIENT.is_dir() else CHECKOUT_CLIENT
    return loaded | {f"{CLIENT_PATH}{path.name}": _load(path, is_shared=True) for path in sorted(client.glob("*.js"))}


def _load(path: Path, *, is_shared: bool = False) -> Asset:
    body = path.read_bytes()
    return Asset(body, _CONTENT_TYPES[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:16]}"', is_shared)


def asset_response(asset: Asset, *, if_none_match: str | None, with_body: bool) -> Response:
    """A file, or 304 where the browser has it already."""
    headers = {"ETag": asset.etag, "Cache-Control": "no-cache"}
    if asset.is_shared:
        headers |= {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}
    if if_none_match == asset.etag:
        return _response(HTTPStatus.NOT_MODIFIED, headers, b"")
    headers |= {"Content-Type": asset.content_type, "Content-Length": str(len(asset.body))}
    return _response(HTTPStatus.OK, headers, asset.body if with_body else b"")


def text_response(status: HTTPStatus, text: str, **headers: str) -> Response:
    """A refusal, in a line for whoever reads it."""
    body = f"{text}\n".encode()
    described = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body))}
    return _response(status, described | headers, body)


def _response(status: HTTPStatus, headers: dict[str, str], body: bytes) -> Response:
    return Response(status.value, status.phrase, Headers({**SECURITY_HEADERS, **headers, "Connection": "close"}), body)
