"""How long a provider asks us to wait, from the headers of its answer."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_NUMBER = re.compile(r"\d+(\.\d+)?")


def retry_after_seconds(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Seconds from `now`, or None where the headers do not say. A moment in the past is 0.

    Read in this order: `retry-after-ms` (OpenAI's own), then `Retry-After` in seconds or as a date (RFC 9110, 10.2.3).
    Names in lower case; the mappings of HTTP clients find any case.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None or value is None:
        return seconds
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:  # "-0000" stands for UTC of an unknown zone
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def _number(text: str | None) -> float | None:
    if text is None or not _NUMBER.fullmatch(text.strip()):
        return None
    number = float(text)
    return number if math.isfinite(number) else None
