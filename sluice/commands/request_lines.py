"""Requests as JSON lines, from a file, a pipe or standard input. All are checked before the first is sent."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Self

from schemas import LLMRequest
from schemas.codec import CodecError, decode_json, encode_body
from schemas.topics import MAX_REQUEST_BYTES

MAX_REQUESTS = 1_000_000
"""In one file: bounds the memory for the check that no id stands twice, to some 200 MB."""
MAX_BYTES = 2 * MAX_REQUEST_BYTES - 16 * 1024
"""Of one request: what its topic takes, less room for headers. The intake answers one that is too large for it."""
IN_MEMORY_BYTES = 8 * 1024 * 1024
"""Of what comes through a pipe, which is read twice as a file is; more of it goes to a temporary file."""


class RequestLineError(Exception):
    """A line that is no request. The message has the form `file:line: field: reason`."""


class RequestLines:
    """Iterate it for its requests: one is in memory at a time. `count` of them were checked. A context manager.

    Raises `RequestLineError`, and OSError where the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with ExitStack() as context:
            self._file = self._open(context)
            self.count = self._check()
            self._context = context.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()

    def __iter__(self) -> Iterator[LLMRequest]:
        return (request for _, request in self._numbered())

    def _open(self, context: ExitStack) -> IO[bytes]:
        if str(self._path) == "-":
            source: IO[bytes] = sys.stdin.buffer
        else:
            source = context.enter_context(self._path.open("rb"))
            if source.seekable():
                return source
        spool: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115 - the stack closes it
        context.enter_context(spool)
        shutil.copyfileobj(source, spool)
        return spool

    def _check(self) -> int:
        lines: dict[str, int] = {}
        for number, request in self._numbered():
            first = lines.setdefault(request.request_id, number)
            if first != number:
                raise RequestLineError(
                    f"{self._path}:{number}: request_id: {request.request_id} stands in line {first} already"
                )
            if len(lines) > MAX_REQUESTS:
                raise RequestLineError(f"{self._path}: more than {MAX_REQUESTS:,} requests; split the file")
        if not lines:
            raise RequestLineError(f"{self._path}: holds no request")
        return len(lines)

    def _numbered(self) -> Iterator[tuple[int, LLMRequest]]:
        self._file.seek(0)
        for number, line in enumerate(self._file, start=1):
            if line.strip():
                yield number, parse_request(line, where=f"{self._path}:{number}")


def parse_request(data: bytes, *, where: str) -> LLMRequest:
    """A request in JSON. Raises `RequestLineError`."""
    try:
        request = decode_json(LLMRequest, data)
    except CodecError as error:
        raise RequestLineError(f"{where}: {error.field + ': ' if error.field else ''}{error.reason}") from error
    size = len(encode_body(request))
    if size > MAX_BYTES:
        raise RequestLineError(f"{where}: is {size:,} bytes, and the topic takes {MAX_BYTES:,}")
    return request
