"""For how long a store remembers requests. `lua/prelude.lua` says the same; all times are milliseconds."""

KEPT_IN_KAFKA_MS = 7 * 86_400_000
"""For how long Kafka keeps tasks (`schemas/topics.py`), and somebody may come with one."""


def while_alive(deadline_ms: int, retention_ms: int) -> int:
    """Until when a request that has not ended is remembered: as long as anybody may come with its task."""
    return deadline_ms + KEPT_IN_KAFKA_MS + retention_ms


def after_end(deadline_ms: int, retention_ms: int, now_ms: int) -> int:
    """Until when a request that has ended is remembered: its task may wait, unread, until long after the deadline."""
    return max(now_ms, min(deadline_ms, now_ms + KEPT_IN_KAFKA_MS)) + retention_ms


def is_forgotten(task_deadline_ms: int, retention_ms: int, now_ms: int) -> bool:
    """Whether a request that is not known has ended and was forgotten since, by the deadline of a task of it."""
    return task_deadline_ms + retention_ms < now_ms
