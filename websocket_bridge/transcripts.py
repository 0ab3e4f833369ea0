"""The answers that are being streamed, as far as they came, so that a client can join in mid-stream. Pure."""

from collections import OrderedDict
from dataclasses import dataclass, field

from schemas.delta import Delta
from websocket_bridge.frames import DeltaRun
from websocket_bridge.subjects import Identity

DEFAULT_MAX_BYTES = 32 * 1024 * 1024
MAX_TRANSCRIPT_BYTES = 1024 * 1024
OVERHEAD_BYTES = 200
"""What a transcript or a piece of one costs beside its characters, roughly."""


@dataclass(slots=True)
class _Transcript:
    tenant_id: str
    attempt: int
    first_seq: int
    next_seq: int
    size_bytes: int = OVERHEAD_BYTES
    pieces: list[str] = field(default_factory=list)

    def is_continued_by(self, delta: Delta) -> bool:
        follows = (delta.attempt, delta.seq) == (self.attempt, self.next_seq)
        return follows and self.size_bytes + len(delta.text) <= MAX_TRANSCRIPT_BYTES


class Transcripts:
    """Texts of the newest attempts, of `max_requests` and within `max_bytes` in all; the one that grew longest ago is
    forgotten first.

    A transcript has no holes: after a missing piece it begins anew behind it, and its `seq` says so. So it does when
    it outgrows `MAX_TRANSCRIPT_BYTES`, which no answer of a language model does today.
    """

    def __init__(self, max_requests: int, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._by_request: OrderedDict[str, _Transcript] = OrderedDict()

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def apply(self, delta: Delta, who: Identity) -> DeltaRun | None:
        """The piece to tell, or None for one of a superseded attempt and for a repeat."""
        known = self._by_request.get(delta.request_id)
        if known is not None and (delta.attempt, delta.seq) < (known.attempt, known.next_seq):
            return None
        if known is None or not known.is_continued_by(delta):
            self._forget(delta.request_id)
            known = _Transcript(delta.tenant_id, delta.attempt, delta.seq, delta.seq)
            self._by_request[delta.request_id] = known
            self._size_bytes += known.size_bytes
        self._append(known, delta)
        self._by_request.move_to_end(delta.request_id)
        self._make_room()
        return DeltaRun(who, delta.attempt, delta.seq, delta.seq, delta.text)

    def supersede(self, request_id: str, attempt: int) -> int | None:
        """A later attempt has begun: the number of the one whose text is void by that, or None where there is none.

        What still arrives of the earlier one is not taken any more.
        """
        known = self._by_request.get(request_id)
        if known is None or known.attempt >= attempt:
            return None
        voided = known.attempt if known.pieces else None
        self._forget(request_id)
        self._by_request[request_id] = _Transcript(known.tenant_id, attempt, 0, 0)
        self._size_bytes += OVERHEAD_BYTES
        self._make_room()
        return voided

    def get(self, request_id: str) -> DeltaRun | None:
        """All that is known of a request's answer, as one run."""
        known = self._by_request.get(request_id)
        if known is None or not known.pieces:
            return None
        if len(known.pieces) > 1:
            freed = (len(known.pieces) - 1) * OVERHEAD_BYTES
            known.pieces = ["".join(known.pieces)]
            known.size_bytes -= freed
            self._size_bytes -= freed
        who = Identity(request_id, known.tenant_id)
        return DeltaRun(who, known.attempt, known.first_seq, known.next_seq - 1, known.pieces[0])

    def all(self) -> list[DeltaRun]:
        """All that is known, newest last."""
        return [run for request_id in self._by_request if (run := self.get(request_id)) is not None]

    def _append(self, transcript: _Transcript, delta: Delta) -> None:
        grown = len(delta.text.encode()) + OVERHEAD_BYTES
        transcript.pieces.append(delta.text)
        transcript.next_seq = delta.seq + 1
        transcript.size_bytes += grown
        self._size_bytes += grown

    def _make_room(self) -> None:
        while self._size_bytes > self._max_bytes or len(self._by_request) > self._max_requests:
            self._forget(next(iter(self._by_request)))

    def _forget(self, request_id: str) -> None:
        known = self._by_request.pop(request_id, None)
        if known is not None:
            self._size_bytes -= known.size_bytes
