"""Requests as JSON lines: all are checked before the first is sent."""

import json
import os
import threading
from pathlib import Path

import pytest

from sluice.commands.request_lines import MAX_BYTES, RequestLineError, RequestLines


def line(request_id: str, text: str = "hello", **fields: object) -> str:
    return json.dumps({"request_id": request_id, "messages": [{"role": "user", "content": text}], **fields})


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_requests_are_read_in_order_and_empty_lines_are_left_out(tmp_path: Path) -> None:
    """As often as they are asked for, and the file's end of lines does not matter."""
    path = written(tmp_path / "r.jsonl", line("a"), "", "  \r", line("b") + "\r")
    with RequestLines(path) as lines:
        assert lines.count == 2
        assert [request.request_id for request in lines] == ["a", "b"]
        assert [request.request_id for request in lines] == ["a", "b"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((line("a"), "nonsense"), ":2: not JSON: "),
        ((line("a"), "", '{"request_id": "b"}'), ":3: messages: "),
        (('{"messages": [{"role": "user", "content": "x"}]}',), ":1: request_id: Field required"),
        ((line("a"), line("b"), line("a")), ":3: request_id: a stands in line 1 already"),
        ((line("a", "x" * MAX_BYTES),), ":1: is 2,08"),
        (("",), ": holds no request"),
    ],
    ids=["no JSON", "incomplete", "no id", "twice", "too large", "empty"],
)
def test_a_bad_line_is_told_with_its_number(lines: tuple[str, ...], said: str, tmp_path: Path) -> None:
    """`file:line: field: reason`, as editors and compilers have it."""
    path = written(tmp_path / "r.jsonl", *lines)
    with pytest.raises(RequestLineError) as caught:
        RequestLines(path)
    assert str(caught.value).startswith(f"{path}{said}")


def test_bytes_that_are_no_text_are_told_with_their_line(tmp_path: Path) -> None:
    """Another encoding than UTF-8 is a bad line, not a crash."""
    path = tmp_path / "r.jsonl"
    path.write_bytes(line("a").encode() + b"\n\xff\xfe\n")
    with pytest.raises(RequestLineError, match=r"r\.jsonl:2: "):
        RequestLines(path)


def test_a_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    """A shell's `<(...)` cannot be read twice, and need not be."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=written, args=(pipe, line("a"), line("b")))
    writer.start()
    with RequestLines(pipe) as lines:
        assert [request.request_id for request in lines] == ["a", "b"]
    writer.join()
