"""Which letters are meant, and which are known: times, rates, places, filters, marks and repeats, without Kafka."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.dead_letter import DeadLetter, DeadLetterMark
from schemas.vocabulary import DeadLetterAction, FailureCategory
from sluice.dlq.letters import LetterFilter, Position, Repeats, StoredLetter
from sluice.dlq.marks import Handled, Marks, mark_of
from sluice.dlq.moments import EPOCH, moment_of, parse_moment, parse_rate
from sluice.dlq.views import printable

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
FEW = st.sampled_from(["a", "b", "c"])
moments = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
)
positions = st.builds(Position, st.integers(0, 5), st.integers(0, 5000))
letters = st.builds(
    DeadLetter,
    request_id=st.none() | FEW,
    tenant_id=st.none() | FEW,
    provider=st.none() | FEW,
    model=st.none() | FEW,
    category=st.sampled_from([FailureCategory.OVERLOADED, FailureCategory.DEADLINE]),
    message=st.just("m"),
    original_topic=st.just("t"),
    original_partition=st.just(0),
    original_offset=st.integers(0, 3),
    state_version=st.integers(0, 2),
    size_bytes=st.just(1),
)
stored_letters = st.builds(StoredLetter, letter=letters, position=positions, died_at=moments)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("0s", NOW),
        ("90s", NOW - timedelta(seconds=90)),
        ("30m", NOW - timedelta(minutes=30)),
        ("2h", NOW - timedelta(hours=2)),
        ("7d", NOW - timedelta(days=7)),
        ("2w", NOW - timedelta(days=14)),
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("2026-11-20T08:00", datetime(2026, 11, 20, 8, tzinfo=UTC)),
        ("2026-11-20T08:00Z", datetime(2026, 11, 20, 8, tzinfo=UTC)),
        ("2026-11-20T08:00+02:00", datetime(2026, 11, 20, 6, tzinfo=UTC)),
        ("999999999w", EPOCH),
        ("0001-01-01", EPOCH),
    ],
)
def test_a_time_is_ago_or_absolute(text: str, moment: datetime) -> None:
    """Without a zone it is UTC: a runbook is read in more than one."""
    assert parse_moment(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "2", "h", "2 h", "-2h", "2h30", "1.5h", "yesterday", "2026-13-01", "٣h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """Rather than taken for some other one: it decides what is purged."""
    with pytest.raises(ValueError, match=r"is no time|is no"):
        parse_moment(text, NOW)


@given(st.text(max_size=30), moments)
def test_any_text_is_a_time_in_utc_or_refused(text: str, now: datetime) -> None:
    """Nothing else is raised, and Kafka can be asked for every result."""
    try:
        moment = parse_moment(text, now)
    except ValueError as error:
        assert "is no time" in str(error)  # noqa: PT017 - both ways out are right
    else:
        assert moment.utcoffset() == timedelta(0)
        assert int(moment.timestamp() * 1000) >= 0


@given(moments, st.integers(-14, 14))
def test_a_time_as_it_is_shown_is_read_as_the_same(moment: datetime, hours: int) -> None:
    """In any zone."""
    assert parse_moment(moment.astimezone(timezone(timedelta(hours=hours))).isoformat(), NOW) == moment


@given(st.integers(-(2**63), 2**63 - 1))
def test_any_timestamp_of_a_record_is_a_moment(timestamp_ms: int) -> None:
    """A producer may write what it likes."""
    assert moment_of(timestamp_ms) >= EPOCH


def test_a_rate_is_a_number_a_second() -> None:
    """What is none, or none at all, is refused."""
    for text, per_second in (("5/s", 5), ("300/m", 5), ("3600/h", 1), ("0.5/s", 0.5), ("7", 7)):
        assert parse_rate(text) == per_second
    for text in ("0", "0/s", "0.000/s", "-1/s", "5/d", "/s", "1e3", "inf", "5 /s", ""):
        with pytest.raises(ValueError, match="is no rate"):
            parse_rate(text)


@given(st.text(max_size=30))
def test_any_text_is_a_rate_above_zero_or_refused(text: str) -> None:
    try:
        assert parse_rate(text) > 0
    except ValueError as error:
        assert "is no rate" in str(error)  # noqa: PT017 - both ways out are right


@given(positions)
def test_a_place_as_it_is_shown_is_read_as_the_same(position: Position) -> None:
    assert Position.parse(str(position)) == position


@given(stored_letters)
def test_no_filter_means_every_letter(stored: StoredLetter) -> None:
    assert LetterFilter().matches(stored)


SETS: dict[str, Callable[[StoredLetter], object]] = {
    "request_ids": lambda stored: stored.letter.request_id,
    "providers": lambda stored: stored.letter.provider,
    "tenants": lambda stored: stored.letter.tenant_id,
    "models": lambda stored: stored.letter.model,
    "categories": lambda stored: str(stored.letter.category),
    "positions": lambda stored: stored.position,
}


@given(
    stored_letters,
    st.fixed_dictionaries(
        {name: st.frozensets(FEW) for name in ("request_ids", "providers", "tenants", "models")}
        | {"categories": st.frozensets(st.sampled_from(["overloaded", "deadline", "refusal"]))}
        | {"positions": st.frozensets(positions, max_size=2)}
    ),
    st.none() | moments,
    st.none() | moments,
)
def test_a_filter_is_all_its_conditions_and_each_is_any_of_its_values(
    stored: StoredLetter, sets: dict[str, frozenset[str]], since: datetime | None, until: datetime | None
) -> None:
    """`since` is within, `until` is not, so that one night's letters and the next one's are never the same."""
    expected = all(not sets[name] or value(stored) in sets[name] for name, value in SETS.items())
    expected = expected and (since is None or since <= stored.died_at) and (until is None or stored.died_at < until)
    wanted = LetterFilter(**sets, since=since, until=until)  # type: ignore[arg-type]
    assert wanted.matches(stored) == expected


@given(stored_letters, st.lists(st.tuples(stored_letters, st.sampled_from(DeadLetterAction), moments), max_size=20))
def test_marks_are_those_that_were_added_last(
    asked: StoredLetter, added: list[tuple[StoredLetter, DeadLetterAction, datetime]]
) -> None:
    """Held against a plain dictionary. A mark older than the letter is of a topic that was there before."""
    marks, newest = Marks(), dict[Position, DeadLetterMark]()
    for stored, action, at in added:
        position = stored.position
        mark = DeadLetterMark(partition=position.partition, offset=position.offset, action=action, at=at)
        marks.add(mark)
        newest[position] = mark
    for stored in (asked, *(stored for stored, _, _ in added)):
        found = newest.get(stored.position)
        is_of_it = found is not None and found.at >= stored.died_at
        assert marks.of(stored) == (Handled(found.action, found.at) if found is not None and is_of_it else None)
        assert marks.has(stored.position) == (found is not None)
    for stored, _, _ in added:
        marks.remove(stored.position)
        assert marks.of(stored) is None


@given(stored_letters, moments)
def test_a_mark_counts_for_its_letter_whatever_the_clocks_say(stored: StoredLetter, now: datetime) -> None:
    """The operator's machine may be behind the worker's."""
    marks = Marks()
    marks.add(mark_of(stored, DeadLetterAction.REDRIVEN, by="x" * 500, now=now))
    handled = marks.of(stored)
    assert handled is not None
    assert handled.action is DeadLetterAction.REDRIVEN


@given(st.lists(letters, max_size=30))
def test_a_repeat_is_the_same_life_of_the_same_record(found: list[DeadLetter]) -> None:
    """Held against a plain dictionary."""
    repeats, first = Repeats(), dict[tuple[object, ...], Position]()
    for offset, letter in enumerate(found):
        position = Position(0, offset)
        identity = (letter.request_id, letter.state_version, letter.original_offset)
        expected = first.get(identity)
        first.setdefault(identity, position)
        stored = StoredLetter(letter=letter, position=position, died_at=NOW)
        assert repeats.first_of(stored) == expected


def test_what_is_remembered_of_repeats_is_bounded() -> None:
    """The least recently seen is forgotten."""
    repeats = Repeats(remembered=2)

    def see(number: int, offset: int) -> Position | None:
        letter = DeadLetter(message="m", original_topic="t", original_partition=0, original_offset=number, size_bytes=1)
        return repeats.first_of(StoredLetter(letter=letter, position=Position(0, offset), died_at=NOW))

    assert [see(1, 0), see(2, 1), see(1, 2), see(3, 3)] == [None, None, Position(0, 0), None]
    assert see(1, 4) == Position(0, 0)
    assert see(2, 5) is None
    assert len(repeats._first) == 2


@given(st.text(max_size=40))
def test_what_is_shown_moves_no_cursor(text: str) -> None:
    """And is the text itself where nothing in it does."""
    shown = printable(text)
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text
