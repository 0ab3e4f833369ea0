"""Dead letters and what is done with them, as operators are told."""

from datetime import timedelta

import pytest
from bridge_support import SUBMITTED_AT, Listener, make_hub
from hypothesis import given
from hypothesis import strategies as st

from schemas.dead_letter import DeadLetter, DeadLetterMark
from schemas.vocabulary import DeadLetterAction
from websocket_bridge import dead_letters
from websocket_bridge.dead_letters import DeadLetters
from websocket_bridge.messages import DeadLetterEntry, Scope
from websocket_bridge.viewer import Viewer

PLACES = range(3)


def entry(offset: int, *, at: int = 0) -> DeadLetterEntry:
    letter = DeadLetter(
        message="too large", original_topic="llm.requests", original_partition=0, original_offset=offset, size_bytes=9
    )
    return DeadLetterEntry(partition=0, offset=offset, at=SUBMITTED_AT + timedelta(seconds=at), letter=letter)


def mark(offset: int, action: DeadLetterAction = DeadLetterAction.REDRIVEN, *, at: int = 60) -> DeadLetterMark:
    moment = SUBMITTED_AT + timedelta(seconds=at)
    return DeadLetterMark(partition=0, offset=offset, action=action, at=moment, by="mira@desk", request_id="essay-9")


def test_letters_are_told_without_their_value() -> None:
    """Newest first in the snapshot, within its limit, and then each as it comes."""
    hub, _, _ = make_hub()
    for offset in range(5):
        hub.on_dead_letter(entry(offset))
    listener = Listener(hub)
    listener.command("subscribe", dead_letters=True, limit=2)
    *_, snapshot = listener.read()
    assert [found["offset"] for found in snapshot["dead_letters"]] == [4, 3]
    hub.on_dead_letter(entry(5))
    (push,) = listener.read()
    assert (push["type"], push["dead_letter"]["letter"]["message"]) == ("dead_letter", "too large")


def test_a_mark_is_told_once_and_stands_in_every_snapshot_after_it() -> None:
    """When, by whom, and what; a repeat says nothing, a later mark replaces the one before."""
    hub, _, _ = make_hub()
    hub.on_dead_letter(entry(1))
    listener = Listener(hub)
    listener.command("subscribe", dead_letters=True)
    listener.read()
    later = mark(1, DeadLetterAction.PURGED, at=90)
    assert [hub.on_dead_letter_mark(one) for one in (mark(1), mark(1), later, mark(1))] == [True, False, True, False]
    told = listener.read()
    assert [(push["type"], push["partition"], push["offset"], push["mark"]["action"]) for push in told] == [
        ("dead_letter_mark", 0, 1, "redriven"),
        ("dead_letter_mark", 0, 1, "purged"),
    ]
    late = Listener(hub)
    late.command("subscribe", dead_letters=True)
    *_, snapshot = late.read()
    (shown,) = snapshot["dead_letters"]
    assert shown["mark"] == {"action": "purged", "at": "2026-11-21T12:01:30Z", "by": "mira@desk"}


def test_a_mark_that_comes_before_its_letter_is_told_with_it() -> None:
    """The two topics are read side by side. To those who have the letter from another bridge it is told at once."""
    hub, _, _ = make_hub()
    listener = Listener(hub)
    listener.command("subscribe", dead_letters=True)
    listener.read()
    hub.on_dead_letter_mark(mark(1))
    hub.on_dead_letter(entry(1))
    early, letter = listener.read()
    assert early["type"] == "dead_letter_mark"
    assert letter["dead_letter"]["mark"]["action"] == "redriven"


def test_a_mark_of_a_deleted_topic_says_nothing_of_the_letter_that_has_its_place_now() -> None:
    """It is older than the letter, whichever of the two is read first."""
    known = DeadLetters()
    known.mark(mark(1, at=60))
    assert known.add(entry(1, at=100)).mark is None
    assert known.mark(mark(1, at=60)) is None
    assert known.mark(mark(1, at=120)) is not None
    assert known.add(entry(1, at=200)).mark is None


@given(st.permutations([(kind, place) for kind in ("letter", "redriven", "purged") for place in PLACES]))
def test_letters_and_marks_in_any_order_come_to_the_same(happened: list[tuple[str, int]]) -> None:
    """Each letter ends with its newest mark."""
    known = DeadLetters()
    for kind, place in happened:
        if kind == "letter":
            known.add(entry(place))
        else:
            known.mark(mark(place, DeadLetterAction(kind), at=90 if kind == "purged" else 60))
    assert {found.offset: found.mark and found.mark.action for found in known.newest_first(None)} == dict.fromkeys(
        PLACES, DeadLetterAction.PURGED
    )


def test_letters_and_early_marks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ones are forgotten; a mark of a letter that is known is never forgotten for others' sake."""
    monkeypatch.setattr(dead_letters, "LETTERS_REMEMBERED", 2)
    monkeypatch.setattr(dead_letters, "EARLY_MARKS_REMEMBERED", 2)
    known = DeadLetters()
    known.add(entry(1))
    known.mark(mark(1))
    for offset in (10, 11, 12):
        known.mark(mark(offset))
    assert known.add(entry(10)).mark is None
    assert known.add(entry(12)).mark is not None
    assert [found.offset for found in known.newest_first(None)] == [12, 10]
    known = DeadLetters()
    known.add(entry(1))
    known.mark(mark(1))
    for offset in range(20, 30):
        known.mark(mark(offset))
    assert [found.mark is not None for found in known.newest_first(None)] == [True]


def test_who_may_not_see_dead_letters_is_told_of_no_mark() -> None:
    """Marks name operators and request ids."""
    hub, _, _ = make_hub(asks_for_tickets=True)
    listener = Listener(hub, viewer=Viewer(scope=Scope.TENANT, tenant_id="press"))
    listener.command("subscribe", dead_letters=True)
    hub.on_dead_letter_mark(mark(1))
    hello, refusal = listener.read()
    assert (hello["type"], refusal["code"]) == ("hello", "forbidden")
