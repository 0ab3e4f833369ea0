"""The page's files, held in memory, with headers that let a browser do nothing but show this page."""

import hashlib
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from websockets.datastructures import Headers
from websockets.http11 import Response

PAGE_FOLDER = Path(__file__).parent / "page"

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
    """One file of the page."""

    body: bytes
    content_type: str
    etag: str


def load_assets(folder: Path = PAGE_FOLDER) -> dict[str, Asset]:
    """URL path to file. The page itself is at `/`."""
    assets = {}
    for path in sorted(folder.iterdir()):
        content_type = _CONTENT_TYPES.get(path.suffix)
        if content_type is not None:
            body = path.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
            assets["/" if path.name == "index.html" else f"/{path.name}"] = Asset(body, content_type, etag)
    return assets


def asset_response(asset: Asset, *, if_none_match: str | None, with_body: bool) -> Response:
    """A file, or 304 where the browser has it already."""
    headers = {"ETag": asset.etag, "Cache-Control": "no-cache"}
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
    return Response(status.value, status.phrase, Headers({**headers, **SECURITY_HEADERS, "Connection": "close"}), body)
