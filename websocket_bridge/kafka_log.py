"""aiokafka says "Unable connect" many times a second while a broker is away. The feed says it once."""

import logging
import time
from collections.abc import Callable

REPEATED_AFTER_SECONDS = 60.0
MAX_LINES_REMEMBERED = 1_000


class RepeatFilter(logging.Filter):
    """Lets a line of aiokafka pass once a minute. Lines are the same where logger and wording are."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._passed: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("aiokafka"):
            return True
        now, line = self._clock(), (record.name, str(record.msg))
        if now - self._passed.get(line, float("-inf")) < REPEATED_AFTER_SECONDS:
            return False
        if len(self._passed) >= MAX_LINES_REMEMBERED:
            self._passed.clear()
        self._passed[line] = now
        return True


def quieten_kafka_log() -> None:
    """For the handlers that the process has: a logger's own filter would not see its children's lines."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(RepeatFilter())
