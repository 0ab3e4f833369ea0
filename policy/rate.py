"""A rate a minute that is never exceeded, over all who share it: a token bucket for the pace, a window for the truth.

The bucket fills at the rate, holds a few seconds of it, and spreads what is granted. It bounds no minute: what it held
at the beginning comes on top. So what was granted is also remembered by time, and a grant has to fit into the minute
behind it. Grants may be spent for `GRANT_LIFE_MS`, which the window is therefore longer than a minute.
"""

from dataclasses import dataclass

MINUTE_MS = 60_000
GRANT_LIFE_MS = 2_000
"""What is granted and not spent by then is given back."""
SLOT_MS = 2_000
BURST_SECONDS = 5.0
"""What the bucket holds, in seconds of the rate: so much may come at once after a pause."""

Granted = tuple[tuple[int, int], ...]
"""Number of a slot of time, and what was granted in it."""


@dataclass(frozen=True, slots=True)
class Rate:
    """`level` of the bucket at `at_ms` (None: never used, full); it is below 0 while a large grant is paid off."""

    level: float | None = None
    at_ms: int = 0
    granted: Granted = ()


def grant(rate: Rate, per_minute: int, *, want: int, least: int, reserved: int, now_ms: int) -> tuple[Rate, int, int]:
    """As much of `want` as there is beyond `reserved`, but at least `least` (from 1), or 0.

    Returns the new state, what was granted, and after how many ms to ask again. `least` of more than the whole rate
    is granted as the whole rate, alone in its minute. More than the bucket holds is granted from a full bucket, which
    then fills from below 0.
    """
    rate = _refilled(rate, per_minute, now_ms)
    level, room = _level(rate) - reserved, _room(rate, per_minute) - reserved
    least = min(least, per_minute)
    needed = min(least, burst(per_minute))
    if level < needed or room < least:
        until_level_ms = int(max(0.0, needed - level) * MINUTE_MS / per_minute) + 1
        return rate, 0, max(until_level_ms, _until_room_ms(rate, least - room, now_ms))
    amount = max(least, min(want, int(level), room))
    return _without(rate, amount, now_ms), amount, 0


def give_back(rate: Rate, per_minute: int, amount: int, *, now_ms: int) -> Rate:
    """What was granted and not spent. It leaves the oldest slots, which leave the window first: that is cautious."""
    rate = _refilled(rate, per_minute, now_ms)
    left = amount
    granted: list[tuple[int, int]] = []
    for slot, held in rate.granted:
        taken = min(held, left)
        left -= taken
        if held > taken:
            granted.append((slot, held - taken))
    return Rate(min(burst(per_minute), _level(rate) + amount), rate.at_ms, tuple(granted))


def charge(rate: Rate, per_minute: int, amount: int, *, now_ms: int) -> Rate:
    """What was spent beyond what had been granted: the truth, whether there was room or not.

    The bucket falls no deeper than what a minute fills again.
    """
    rate = _without(_refilled(rate, per_minute, now_ms), amount, now_ms)
    return Rate(max(_level(rate), -per_minute), rate.at_ms, rate.granted)


def lower(rate: Rate, per_minute: int, remaining: int, *, now_ms: int) -> Rate:
    """The provider says that so much is left: the bucket holds no more."""
    rate = _refilled(rate, per_minute, now_ms)
    return Rate(min(_level(rate), remaining), rate.at_ms, rate.granted)


def burst(per_minute: int) -> float:
    """What the bucket holds."""
    return min(per_minute, max(1.0, per_minute * BURST_SECONDS * 1000 / MINUTE_MS))


def _refilled(rate: Rate, per_minute: int, now_ms: int) -> Rate:
    oldest = (now_ms - MINUTE_MS - GRANT_LIFE_MS) // SLOT_MS
    granted = tuple(slot for slot in rate.granted if slot[0] >= oldest)
    if rate.level is None:
        return Rate(burst(per_minute), now_ms, granted)
    # A clock that was set back fills nothing.
    passed_ms = max(0, now_ms - rate.at_ms)
    level = min(burst(per_minute), rate.level + per_minute * passed_ms / MINUTE_MS)
    return Rate(level, rate.at_ms + passed_ms, granted)


def _level(rate: Rate) -> float:
    return rate.level or 0.0


def _room(rate: Rate, per_minute: int) -> int:
    return per_minute - sum(amount for _, amount in rate.granted)


def _without(rate: Rate, amount: int, now_ms: int) -> Rate:
    slot, kept = now_ms // SLOT_MS, rate.granted
    if kept and kept[-1][0] >= slot:
        slot, before = kept[-1]
        granted = (*kept[:-1], (slot, before + amount))
    else:
        granted = (*kept, (slot, amount))
    return Rate(_level(rate) - amount, rate.at_ms, granted)


def _until_room_ms(rate: Rate, missing: int, now_ms: int) -> int:
    """Until so much has left the window. 0 where nothing is missing."""
    until_ms = 0
    for slot, amount in rate.granted:
        if missing <= 0:
            break
        missing -= amount
        until_ms = (slot + 1) * SLOT_MS + MINUTE_MS + GRANT_LIFE_MS - now_ms
    return until_ms
