"""How dead letters are shown: rows, details and JSON. What others wrote is shown without control characters."""

import base64
import json
from typing import Any

from aiokafka import ConsumerRecord
from rich.table import Table
from rich.text import Text

from schemas import LLMRequest
from schemas.codec import Codec, CodecError, is_json
from schemas.dead_letter import DeadLetterMark
from schemas.envelope import iso
from sluice.dlq.letters import StoredLetter
from sluice.dlq.mailbox import Found
from sluice.dlq.marks import Handled
from sluice.dlq.redriving import value_left_out

MAX_HEADER_CHARACTERS = 200
Json = dict[str, Any]


def printable(text: str) -> str:
    """Escapes what would move a terminal's cursor or colour it."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode() for letter in text
    )


def row_json(stored: StoredLetter, handled: Handled | None) -> Json:
    """A letter as `list --json` has it."""
    return {
        "at": str(stored.position),
        "died_at": iso(stored.died_at),
        **stored.letter.model_dump(mode="json"),
        "handled": {"action": handled.action, "at": iso(handled.at)} if handled else None,
    }


def table(rows: list[tuple[StoredLetter, Handled | None]]) -> Table:
    """Letters as `list` shows them."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("AT", "DIED (UTC)", "CATEGORY", "REQUEST"):
        shown.add_column(heading, no_wrap=True)
    for heading in ("TENANT", "PROVIDER", "MODEL", "HANDLED"):
        shown.add_column(heading, no_wrap=True, overflow="ellipsis", max_width=24)
    shown.add_column("WHY", no_wrap=True, overflow="ellipsis")
    for stored, handled in rows:
        letter = stored.letter
        cells = (
            str(stored.position),
            f"{stored.died_at:%Y-%m-%d %H:%M:%S}",
            letter.category,
            letter.request_id or "-",
            letter.tenant_id or "-",
            letter.provider or "-",
            letter.model or "-",
            handled.action if handled else "-",
            letter.message,
        )
        # Text, for brackets in a message are no markup.
        shown.add_row(*(Text(printable(cell)) for cell in cells))
    return shown


async def details(found: Found, mark: DeadLetterMark | None, codec: Codec, *, with_value: bool) -> Json:
    """A letter as `show` has it. The value of a request is its text: it is there on demand alone."""
    shown = row_json(found.stored, None)
    shown["handled"] = (
        {"action": mark.action, "at": iso(mark.at), "by": mark.by}
        if mark is not None and mark.at >= found.stored.died_at
        else None
    )
    record = found.record
    shown["key"] = _text(record.key)
    shown["headers"] = [[name, _text(value)] for name, value in record.headers]
    shown["value_left_out"] = value_left_out(found)
    if with_value:
        shown["value"] = await _value(record, codec)
    return shown


def lines(shown: Json) -> list[str]:
    """The same for people."""
    told = [printable(f"{shown['at']}  {shown['request_id'] or 'without a request id'}")]
    for name, value in shown.items():
        if name in {"at", "request_id", "headers", "value"} or value is None:
            continue
        text = f"{value['action']} {value['at']} by {value['by'] or 'unknown'}" if name == "handled" else value
        told.append(printable(f"  {name.replace('_', ' '):<20} {text}"))
    told.append("  headers")
    told += [printable(f"    {name:<32} {_cut(value)}") for name, value in shown["headers"]]
    if "value" in shown:
        told.append("  value")
        text = json.dumps(shown["value"], indent=2, ensure_ascii=False)
        told += [printable(f"    {line}") for line in text.split("\n")]
    return told


async def _value(record: ConsumerRecord, codec: Codec) -> Json | None:
    """The request where it can be read; else the bytes as they are."""
    if record.value is None:
        return None
    try:
        if is_json(record.value):
            return {"json": json.loads(record.value)}
        request = await codec.decode(LLMRequest, record.value)
        return {"request": request.model_dump(mode="json", exclude_none=True)}
    except (CodecError, ValueError, RecursionError):
        return {"base64": base64.b64encode(record.value).decode()}


def _text(value: bytes | None) -> str | None:
    """Text where it is some, else base64 that says so."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(value).decode()


def _cut(text: str | None) -> str:
    if text is None:
        return "null"
    return (
        text if len(text) <= MAX_HEADER_CHARACTERS else f"{text[:MAX_HEADER_CHARACTERS]}... ({len(text):,} characters)"
    )
