"""Times and rates as people type them."""

import re
from datetime import UTC, datetime, timedelta

EPOCH = datetime.fromtimestamp(0, UTC)
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGO = re.compile(r"([0-9]{1,9})([smhdw])")
_RATE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(?:/([smh]))?")


def parse_moment(text: str, now: datetime) -> datetime:
    """`2h` is two hours ago; else ISO 8601, in UTC where it has no zone. In UTC, not before 1970. Raises ValueError."""
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            moment = now - timedelta(seconds=int(ago[1]) * _UNIT_SECONDS[ago[2]])
        else:
            moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(moment.astimezone(UTC), EPOCH)  # Kafka knows no time before it
    except OverflowError:
        return EPOCH
    except ValueError:
        raise ValueError(f"{text} is no time: 90s, 30m, 2h, 7d (ago), 2026-11-20 or 2026-11-20T08:00Z") from None


def parse_rate(text: str) -> float:
    """`5/s`, `300/m`, `1000/h` or `5`, as a number a second. Raises ValueError."""
    found = _RATE.fullmatch(text)
    if found is None or float(found[1]) == 0:
        raise ValueError(f"{text} is no rate: 5/s, 300/m or 1000/h")
    return float(found[1]) / _UNIT_SECONDS[found[2] or "s"]


def moment_of(timestamp_ms: int) -> datetime:
    """The time of a Kafka record; 1970 where the number that a producer wrote is none."""
    try:
        return max(datetime.fromtimestamp(timestamp_ms / 1000, UTC), EPOCH)
    except (OverflowError, ValueError, OSError):
        return EPOCH
