"""Free ports on 127.0.0.1."""

import random
import socket
from collections.abc import Sequence

LOOPBACK = "127.0.0.1"

# Below the range from which systems draw the ports of outgoing connections (32768 and up on Linux, 49152 and
# up elsewhere): while a killed server is down, a client's connection must not take its port.
_FIRST, _LAST = 20_000, 29_999
_ATTEMPTS = 200


def is_free(port: int) -> bool:
    """Whether a server could listen on this port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As Kafka and Redis do: a port whose last connections are in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def answers(port: int, timeout_seconds: float = 1.0) -> bool:
    """Whether something accepts connections on this port."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=timeout_seconds):
            return True
    except OSError:
        return False


def choose(count: int, *, prefer: Sequence[int] = ()) -> tuple[int, ...]:
    """`prefer` when all of them are free (an address in somebody's shell stays valid), else others."""
    if len(prefer) == count and all(is_free(port) for port in prefer):
        return tuple(prefer)
    chosen: list[int] = []
    pick = random.SystemRandom()
    for _ in range(_ATTEMPTS):
        port = pick.randint(_FIRST, _LAST)
        if port not in chosen and is_free(port):
            chosen.append(port)
        if len(chosen) == count:
            return tuple(chosen)
    raise OSError(f"no {count} free ports found between {_FIRST} and {_LAST}")
