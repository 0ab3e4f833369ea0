"""What was done with dead letters: marks, as they are written to Kafka and as they are known here."""

from array import array
from dataclasses import dataclass
from datetime import UTC, datetime

from connectors.kafka.producer import Outgoing
from schemas.base import epoch_ms
from schemas.codec import Codec
from schemas.dead_letter import DeadLetterMark
from schemas.envelope import cloud_event
from schemas.vocabulary import DeadLetterAction
from sluice.dlq.letters import Position, StoredLetter

SOURCE = "/sluice/dlq"
_PAGE_OFFSETS = 1024
_ACTIONS = (DeadLetterAction.UNKNOWN, DeadLetterAction.REDRIVEN, DeadLetterAction.PURGED)
_ACTION_CODES = 4


@dataclass(frozen=True, slots=True)
class Handled:
    """What was done with a letter, and when."""

    action: DeadLetterAction
    at: datetime


class Marks:
    """The marks of all letters, 8 bytes each: millions fit. Pages of consecutive offsets, for they come in runs."""

    def __init__(self) -> None:
        self._pages: dict[tuple[int, int], array[int]] = {}

    def add(self, mark: DeadLetterMark) -> None:
        page, place = divmod(mark.offset, _PAGE_OFFSETS)
        code = _ACTIONS.index(mark.action) if mark.action in _ACTIONS else 0
        milliseconds = max(1, epoch_ms(mark.at))
        values = self._pages.setdefault((mark.partition, page), array("Q", bytes(8 * _PAGE_OFFSETS)))
        values[place] = milliseconds * _ACTION_CODES + code

    def remove(self, position: Position) -> None:
        """For the null that deletes a mark from its topic."""
        page, place = divmod(position.offset, _PAGE_OFFSETS)
        if (position.partition, page) in self._pages:
            self._pages[position.partition, page][place] = 0

    def has(self, position: Position) -> bool:
        """Whether there is a mark of this place, whatever its age."""
        page, place = divmod(position.offset, _PAGE_OFFSETS)
        values = self._pages.get((position.partition, page))
        return values is not None and values[place] > 0

    def of(self, stored: StoredLetter) -> Handled | None:
        """What was done with this letter. A mark that is older than it is of a topic that was deleted since."""
        page, place = divmod(stored.position.offset, _PAGE_OFFSETS)
        values = self._pages.get((stored.position.partition, page))
        if values is None or not values[place]:
            return None
        milliseconds, code = divmod(values[place], _ACTION_CODES)
        at = datetime.fromtimestamp(milliseconds / 1000, UTC)
        return Handled(_ACTIONS[code], at) if at >= stored.died_at else None


def mark_of(stored: StoredLetter, action: DeadLetterAction, *, by: str, now: datetime) -> DeadLetterMark:
    """The mark of this letter. Never older than the letter, whatever the clocks of two machines say."""
    return DeadLetterMark(
        partition=stored.position.partition,
        offset=stored.position.offset,
        action=action,
        at=max(now, stored.died_at),
        by=by[:200],
        request_id=stored.letter.request_id,
    )


def mark_record(mark: DeadLetterMark, *, topic: str, codec: Codec) -> Outgoing:
    """As it goes to the topic of marks."""
    key = str(Position(mark.partition, mark.offset))
    headers = cloud_event(type="sluice.DeadLetterMark", source=SOURCE, key=key, time=mark.at)
    return Outgoing(topic=topic, key=key.encode(), value=codec.encode(mark), headers=headers)
