"""What a provider's headers say of its limits, in one form. Pure: headers and the time in, limits out.

Three families of names are read, and the moment of a reset in every form that is met behind them:

    x-ratelimit-{limit,remaining,reset}-{requests,tokens}                               OpenAI, Azure, most gateways
    anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}      Anthropic
    x-ratelimit-{limit,remaining,reset}                                                 OpenRouter: requests

    6m0s   1s   20ms   1h2m3.5s      a duration as Go writes it (OpenAI)
    2026-11-21T08:00:00Z             a moment, RFC 3339 (Anthropic)
    59   0.25                        seconds from now (Azure)
    1795248000   1795248000000       a moment in Unix time, in seconds or milliseconds (OpenRouter)

A value of no such form counts as not said: a limit is a hint, and never worth failing a call for.
"""

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from connectors.providers.base import LimitedResource, RateLimit

_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_PART = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)(ns|us|µs|ms|s|m|h|d)", re.ASCII)
_DURATION = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,15})?", re.ASCII)
_COUNT = re.compile(r"\d{1,15}", re.ASCII)
_UNIX_SECONDS_FROM = 1e9
"""The year 2001; as a duration, 31 years."""
_UNIX_MILLISECONDS_FROM = 1e12
_LONGEST_RESET_SECONDS = 366 * 86_400
"""What lies further away is no reset, but something else that a gateway put there."""


class _Names(NamedTuple):
    resource: LimitedResource
    limit: str
    remaining: str
    reset: str


def _openai(resource: LimitedResource, name: str) -> _Names:
    return _Names(resource, *(f"x-ratelimit-{what}-{name}" for what in ("limit", "remaining", "reset")))


def _anthropic(resource: LimitedResource, name: str) -> _Names:
    return _Names(resource, *(f"anthropic-ratelimit-{name}-{what}" for what in ("limit", "remaining", "reset")))


NAMES: tuple[_Names, ...] = (
    _openai(LimitedResource.REQUESTS, "requests"),
    _openai(LimitedResource.TOKENS, "tokens"),
    _anthropic(LimitedResource.REQUESTS, "requests"),
    _anthropic(LimitedResource.TOKENS, "tokens"),
    _anthropic(LimitedResource.INPUT_TOKENS, "input-tokens"),
    _anthropic(LimitedResource.OUTPUT_TOKENS, "output-tokens"),
    _Names(LimitedResource.REQUESTS, "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"),
)
"""Where several tell of one resource (there is a gateway between), the first one counts."""


def rate_limits(headers: Mapping[str, str], now: datetime) -> tuple[RateLimit, ...]:
    """The limits that were told with an answer or an error, at most one a resource. `now` has a time zone."""
    # Once through all headers: an HTTP client's mapping searches them all for every name that it is asked for.
    said = {name: value for key, value in headers.items() if "ratelimit" in (name := key.lower())}
    found: dict[LimitedResource, RateLimit] = {}
    for names in NAMES if said else ():
        limit, remaining = _count(said.get(names.limit)), _count(said.get(names.remaining))
        resets_in_seconds = seconds_to_reset(said.get(names.reset), now)
        if (limit, remaining, resets_in_seconds) != (None, None, None):
            told = RateLimit(
                resource=names.resource, limit=limit, remaining=remaining, resets_in_seconds=resets_in_seconds
            )
            found.setdefault(names.resource, told)
    return tuple(found.values())


def seconds_to_reset(value: str | None, now: datetime) -> float | None:
    """Seconds from `now` to a reset, or None for what is no reset. A moment in the past is 0."""
    text = (value or "").strip()
    seconds = _by_number(text, now) if _NUMBER.fullmatch(text) else _by_words(text, now)
    return None if seconds is None or seconds > _LONGEST_RESET_SECONDS else max(0.0, seconds)


def _by_number(text: str, now: datetime) -> float:
    number = float(text)
    if number >= _UNIX_MILLISECONDS_FROM:
        return number / 1000 - now.timestamp()
    return number - now.timestamp() if number >= _UNIX_SECONDS_FROM else number


def _by_words(text: str, now: datetime) -> float | None:
    if _DURATION.fullmatch(text):
        return math.fsum(float(number) * _UNIT_SECONDS[unit] for number, unit in _PART.findall(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if moment.tzinfo is None else (moment - now).total_seconds()


def _count(value: str | None) -> int | None:
    text = (value or "").strip()
    return int(text) if _COUNT.fullmatch(text) else None
