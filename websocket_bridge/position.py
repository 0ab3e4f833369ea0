"""Where a client is in Kafka, as the token that it comes back with. Pure.

A position is the next offset of each partition of the topics that are replayed, and the epoch: a mark of the cluster
and the topics that these offsets mean something in. Any bridge of the deployment reads the token of any other.

The token is not signed. It holds nothing but offsets, and what is replayed from there is held to the viewer's rights
like all else: one who makes up a token wins nothing that a subscription would not give. It is checked for its form,
its epoch and its ranges, so that a wrong one ends in a gap and never in a wrong view.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FORMAT = 1
EPOCH_BYTES = 6
MAX_TOKEN_CHARACTERS = 8_192
MAX_PARTITIONS = 1_000
MAX_OFFSET = 2**63 - 1

Place = tuple[int, int]
"""A topic by its number among those that are replayed, and a partition."""


def epoch_of(cluster_id: str, topics: Sequence[str]) -> bytes:
    """The mark of a deployment."""
    return hashlib.sha256("\n".join((cluster_id, *topics)).encode()).digest()[:EPOCH_BYTES]


@dataclass(frozen=True, slots=True)
class Position:
    """Next offsets by place."""

    epoch: bytes
    offsets: Mapping[Place, int]

    @property
    def token(self) -> str:
        """URL-safe text, some 5 characters a partition. Partitions of a topic are numbered from 0 without holes."""
        counts = [0] * (1 + max((topic for topic, _ in self.offsets), default=-1))
        for topic, partition in self.offsets:
            counts[topic] = max(counts[topic], partition + 1)
        body = bytearray((FORMAT,)) + self.epoch
        _put(body, len(counts))
        for topic, count in enumerate(counts):
            _put(body, count)
            for partition in range(count):
                _put(body, self.offsets.get((topic, partition), 0))
        return base64.urlsafe_b64encode(bytes(body)).rstrip(b"=").decode()


def read_token(token: str) -> Position | None:
    """The position that a token holds, or None for anything that is none."""
    if len(token) > MAX_TOKEN_CHARACTERS:
        return None
    try:
        body = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(body) <= EPOCH_BYTES or body[0] != FORMAT:
        return None
    try:
        offsets, end = _read_offsets(body, 1 + EPOCH_BYTES)
    except (IndexError, OverflowError):
        return None
    return Position(body[1 : 1 + EPOCH_BYTES], offsets) if end == len(body) else None


def _read_offsets(body: bytes, at: int) -> tuple[dict[Place, int], int]:
    offsets: dict[Place, int] = {}
    topics, at = _take(body, at)
    for topic in range(topics):
        partitions, at = _take(body, at)
        for partition in range(partitions):
            if len(offsets) == MAX_PARTITIONS:
                raise OverflowError
            offsets[topic, partition], at = _take(body, at)
    return offsets, at


def _put(body: bytearray, number: int) -> None:
    """LEB128, as Kafka and Avro write unsigned numbers."""
    while number > 0x7F:
        body.append(number & 0x7F | 0x80)
        number >>= 7
    body.append(number)


def _take(body: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        part = body[at]
        at += 1
        number |= (part & 0x7F) << shift
        if part < 0x80:
            break
        shift += 7
        if shift > 63:
            raise OverflowError
    if number > MAX_OFFSET:
        raise OverflowError
    return number, at
