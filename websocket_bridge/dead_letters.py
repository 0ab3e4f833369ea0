"""The newest dead letters, and what was done with each. Bounded. Pure.

Letters and marks are in two topics, which are read side by side: a mark may come before its letter.
"""

from collections import OrderedDict

from schemas.dead_letter import DeadLetterMark
from websocket_bridge.messages import DeadLetterEntry, Mark

LETTERS_REMEMBERED = 1_000
EARLY_MARKS_REMEMBERED = 10_000
"""Of letters that are not known here: not read yet, or older than what is shown."""

LetterPlace = tuple[int, int]
"""Partition and offset."""


class DeadLetters:
    """Beyond the bounds the letter, or the mark, that came first is forgotten."""

    def __init__(self) -> None:
        self._letters: OrderedDict[LetterPlace, DeadLetterEntry] = OrderedDict()
        self._early: OrderedDict[LetterPlace, Mark] = OrderedDict()

    def add(self, entry: DeadLetterEntry) -> DeadLetterEntry:
        """The letter, with its mark where there is one already."""
        place = (entry.partition, entry.offset)
        mark = self._early.pop(place, None)
        if mark is not None and mark.at >= entry.at:  # an older one is of a topic that was deleted since
            entry = entry.model_copy(update={"mark": mark})
        self._letters[place] = entry
        self._letters.move_to_end(place)
        if len(self._letters) > LETTERS_REMEMBERED:
            self._letters.popitem(last=False)
        return entry

    def mark(self, record: DeadLetterMark) -> Mark | None:
        """What is to be told, or None where as much is known, or where the letter in this place is a newer one."""
        place = (record.partition, record.offset)
        mark = Mark(action=record.action, at=record.at, by=record.by)
        entry = self._letters.get(place)
        known = self._early.get(place) if entry is None else entry.mark
        if (entry is not None and mark.at < entry.at) or (known is not None and mark.at <= known.at):
            return None
        if entry is None:
            self._early[place] = mark
            self._early.move_to_end(place)
            if len(self._early) > EARLY_MARKS_REMEMBERED:
                self._early.popitem(last=False)
        else:
            self._letters[place] = entry.model_copy(update={"mark": mark})
        return mark

    def newest_first(self, limit: int | None) -> list[DeadLetterEntry]:
        """All of them, or so many."""
        newest_first = list(reversed(self._letters.values()))
        return newest_first if limit is None else newest_first[:limit]
