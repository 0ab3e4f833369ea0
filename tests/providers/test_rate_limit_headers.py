import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.providers.base import LimitedResource, RateLimit
from connectors.providers.rate_limit_headers import rate_limits, seconds_to_reset

NOW = datetime(2026, 11, 21, 8, 0, 0, tzinfo=UTC)
UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1, "ms": 0.001}


def test_openai_s_headers() -> None:
    """Requests and tokens, with resets as Go writes durations."""
    headers = {
        "x-ratelimit-limit-requests": "5000",
        "x-ratelimit-remaining-requests": "4999",
        "x-ratelimit-reset-requests": "12ms",
        "x-ratelimit-limit-tokens": "800000",
        "x-ratelimit-remaining-tokens": "799975",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    assert rate_limits(headers, NOW) == (
        RateLimit(resource=LimitedResource.REQUESTS, limit=5000, remaining=4999, resets_in_seconds=0.012),
        RateLimit(resource=LimitedResource.TOKENS, limit=800_000, remaining=799_975, resets_in_seconds=360.0),
    )


def test_anthropic_s_headers() -> None:
    """Four resources, with resets as moments."""
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2026-11-21T08:00:30Z",
        "anthropic-ratelimit-tokens-limit": "90000",
        "anthropic-ratelimit-input-tokens-remaining": "49000",
        "anthropic-ratelimit-output-tokens-reset": "2026-11-21T09:00:00+01:00",
    }
    assert rate_limits(headers, NOW) == (
        RateLimit(resource=LimitedResource.REQUESTS, limit=50, remaining=0, resets_in_seconds=30.0),
        RateLimit(resource=LimitedResource.TOKENS, limit=90_000),
        RateLimit(resource=LimitedResource.INPUT_TOKENS, remaining=49_000),
        RateLimit(resource=LimitedResource.OUTPUT_TOKENS, resets_in_seconds=0.0),
    )


def test_openrouter_s_headers() -> None:
    """They name no resource, and tell the reset in Unix milliseconds."""
    reset = str(int((NOW + timedelta(hours=1)).timestamp() * 1000))
    headers = {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset}
    expected = RateLimit(resource=LimitedResource.REQUESTS, limit=50, remaining=0, resets_in_seconds=3600.0)
    assert rate_limits(headers, NOW) == (expected,)


def test_one_limit_a_resource() -> None:
    """Where a gateway adds its own headers, the more precise ones count."""
    headers = {"x-ratelimit-limit": "1", "x-ratelimit-limit-requests": "2"}
    assert rate_limits(headers, NOW) == (RateLimit(resource=LimitedResource.REQUESTS, limit=2),)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/json"},
        {"x-ratelimit-limit-requests": "many", "x-ratelimit-remaining-requests": "-1"},
        {"x-ratelimit-reset-requests": "soon"},
    ],
)
def test_what_is_not_said_is_not_made_up(headers: dict[str, str]) -> None:
    """No headers, or none that can be read: no limits."""
    assert rate_limits(headers, NOW) == ()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("1m12.172s", 72.172),
        ("0s", 0),
        ("59", 59),
        ("0.25", 0.25),
        (" 7 ", 7),
        ("2026-11-21T08:00:01.5Z", 1.5),
        ("2026-11-21T07:59:00Z", 0),
        (str(int(NOW.timestamp()) + 60), 60),
        (str(int(NOW.timestamp()) - 60), 0),
    ],
)
def test_forms_of_a_reset(value: str, seconds: float) -> None:
    """Each form that a provider uses is read as seconds from now."""
    assert seconds_to_reset(value, NOW) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [None, "", "-1", "1e5", "1s2", "s", "٣s", "2026-11-21T08:00:00", "400d", "never"])
def test_what_is_no_reset(value: str | None) -> None:
    """Nothing, nonsense, a moment without a zone, and what lies over a year ahead."""
    assert seconds_to_reset(value, NOW) is None


@given(st.dictionaries(st.sampled_from(list(UNITS)), st.integers(0, 60), min_size=1))
def test_a_duration_is_the_sum_of_its_parts(parts: dict[str, int]) -> None:
    """Whatever units it is written in, as long as it is believable."""
    text = "".join(f"{parts[unit]}{unit}" for unit in UNITS if unit in parts)
    total = math.fsum(number * UNITS[unit] for unit, number in parts.items())
    assert seconds_to_reset(text, NOW) == pytest.approx(total)


@given(st.floats(-1e6, 1e6), st.integers(-12 * 60, 12 * 60))
def test_a_moment_is_counted_from_now_in_any_zone(ahead_seconds: float, zone_minutes: int) -> None:
    """And never less than 0."""
    zone = timezone(timedelta(minutes=zone_minutes))
    moment = (NOW + timedelta(seconds=ahead_seconds)).astimezone(zone)
    assert seconds_to_reset(moment.isoformat(), NOW) == pytest.approx(max(0.0, ahead_seconds), abs=1e-5)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                *(
                    f"x-ratelimit-{what}-{of}"
                    for what in ("limit", "remaining", "reset")
                    for of in ("requests", "tokens")
                ),
                *(f"anthropic-ratelimit-input-tokens-{what}" for what in ("limit", "remaining", "reset")),
                "x-ratelimit-limit",
                "x-ratelimit-reset",
                "x-request-id",
            ]
        ),
        st.text() | st.integers().map(str) | st.floats().map(str) | st.datetimes().map(datetime.isoformat),
    )
)
def test_no_header_can_do_harm(headers: dict[str, str]) -> None:
    """Whatever they hold, what comes is sound: one limit a resource, counts and times not below 0 and finite."""
    limits = rate_limits(headers, NOW)
    assert len({limit.resource for limit in limits}) == len(limits)
    for limit in limits:
        assert limit.limit is None or limit.limit >= 0
        assert limit.remaining is None or limit.remaining >= 0
        assert limit.resets_in_seconds is None or 0 <= limit.resets_in_seconds < math.inf
