"""What is admitted and has not ended, as the memory store counts it."""


class MemoryCount:
    """The twin of the load and of the deadlines in Redis: sizes in bytes, and when each request is due."""

    def __init__(self) -> None:
        self._bytes: dict[str, int] = {}
        self._due_ms: dict[str, int] = {}

    def add(self, request_id: str, size_bytes: int, due_ms: int) -> None:
        self._bytes[request_id] = size_bytes
        self._due_ms[request_id] = due_ms

    def remove(self, request_id: str) -> None:
        """Without effect for one that is not counted."""
        self._bytes.pop(request_id, None)
        self._due_ms.pop(request_id, None)

    def bring_forward(self, request_id: str, due_ms: int) -> None:
        """One that is counted is due then at the latest."""
        if request_id in self._due_ms:
            self._due_ms[request_id] = min(self._due_ms[request_id], due_ms)

    def due(self, now_ms: int) -> list[str]:
        """Ids of what is due, the oldest first."""
        due = sorted((due_ms, request_id) for request_id, due_ms in self._due_ms.items() if due_ms <= now_ms)
        return [request_id for _, request_id in due]

    @property
    def ids(self) -> list[str]:
        return list(self._bytes)

    @property
    def totals(self) -> tuple[int, int]:
        """Requests and bytes."""
        return len(self._bytes), sum(self._bytes.values())
