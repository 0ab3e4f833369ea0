"""The limits on time that an SDK's HTTP client gets. The exact ones are the caller's (`streams.calling`).

httpx counts the time between two reads. Before the first token and between tokens it cannot tell apart, so for a
stream the longer limit holds here; these only speak where the caller's cannot (connecting), or failed.
"""

import httpx2

from policy.catalogue import Timeouts


def sdk_timeout(timeouts: Timeouts, *, streamed: bool) -> httpx2.Timeout:
    """For one call."""
    read_seconds = max(timeouts.first_token_seconds, timeouts.stall_seconds) if streamed else timeouts.total_seconds
    return httpx2.Timeout(
        connect=timeouts.connect_seconds,
        pool=timeouts.connect_seconds,
        write=timeouts.stall_seconds,
        read=read_seconds,
    )
