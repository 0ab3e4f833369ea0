"""Cancellations of what has not come yet, as the memory store keeps them."""

from connectors.state.base import Cancellation


class MemoryCancellations:
    """The twin of the cancellations set in Redis: when each was issued, by request id, tenant and correlation id."""

    def __init__(self) -> None:
        self._issued_ms: dict[tuple[str, str, str], int] = {}

    def note(self, cancellation: Cancellation, *, oldest_ms: int) -> None:
        """Notes it, and forgets what was issued before `oldest_ms`."""
        which = (cancellation.request_id, cancellation.tenant_id, cancellation.correlation_id)
        self._issued_ms[which] = max(self._issued_ms.get(which, 0), cancellation.issued_ms)
        self._issued_ms = {which: ms for which, ms in self._issued_ms.items() if ms >= oldest_ms}

    def forbid(self, request_id: str, tenant_id: str, correlation_id: str, *, asked_ms: int) -> bool:
        """Whether one of them concerns such a request that was asked for then."""
        return any(
            of_id in ("", request_id)
            and of_tenant in ("", tenant_id)
            and of_correlation in ("", correlation_id)
            and asked_ms <= issued_ms
            for (of_id, of_tenant, of_correlation), issued_ms in self._issued_ms.items()
        )
