"""What a provider's headers say of its limits, in one form. Pure: headers and the time in, limits out.

Two families of names are read, and the moment of a reset in every form that is met behind them:

    x-ratelimit-{limit,remaining,reset}-{requests,tokens}                               OpenAI, Azure, vLLM gateways
    anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}      Anthropic

    6m0s   1s   20ms   1h2m3.5s      a duration as Go writes it (OpenAI)
    2026-11-21T08:00:00Z             a moment, RFC 3339 (Anthropic)
    59   0.25                        seconds (Azure and gateways)

A value of no such form counts as not said. It is a hint to a limiter, and never worth failing a call for.
"""

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from connectors.providers.base import LimitedResource, RateLimit

_DURATION = re.compile(r"(?:\d{1,15}(?:\.\d{1,15})?(?:ns|us|µs|ms|s|m|h|d))+", re.ASCII)
_PART = re.compile(r"([\d.]+)(ns|us|µs|ms|s|m|h|d)", re.ASCII)
_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_SECONDS = re.compile(r"\d{1,15}(?:\.\d{1,15})?", re.ASCII)
_COUNT = re.compile(r"\d{1,15}", re.ASCII)


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
)
"""Where both families tell of one resource (a gateway between), the first one counts."""


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
    """Seconds until a reset, or None for what is no reset. A moment in the past is 0."""
    text = (value or "").strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    if _DURATION.fullmatch(text):
        return math.fsum(float(number) * _UNIT_SECONDS[unit] for number, unit in _PART.findall(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if moment.tzinfo is None else max(0.0, (moment - now).total_seconds())


def _count(value: str | None) -> int | None:
    text = (value or "").strip()
    return int(text) if _COUNT.fullmatch(text) else None
