"""The bytes that a local model brings, token by token, as text: whole characters, up to a stop string. Pure."""

import codecs
from collections.abc import Sequence


class TokenText:
    """Feed it the bytes of each token. What it returns can be shown at once, and is never taken back.

    A character may come in several tokens, and so may a stop string: what could be the start of either is held back
    until the next token, or the end, decides it. Raises `UnicodeDecodeError` for bytes that are no UTF-8.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = [stop for stop in stops if stop]
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="strict")
        self._held = ""
        self.stopped = False
        """A stop string came; it and what followed it are left out."""

    def add(self, piece: bytes) -> str:
        """The next token's bytes. Returns the text that is certain by now."""
        return self._take(self._decoder.decode(piece))

    def end(self) -> str:
        """No token follows. Returns what was held back."""
        text = self._take(self._decoder.decode(b"", final=True))
        if not self.stopped:
            text, self._held = text + self._held, ""
        return text

    def _take(self, text: str) -> str:
        if self.stopped:
            return ""
        self._held += text
        found = [start for stop in self._stops if (start := self._held.find(stop)) >= 0]
        self.stopped = bool(found)
        certain = min(found) if found else len(self._held) - self._could_become_a_stop()
        text, self._held = self._held[:certain], "" if self.stopped else self._held[certain:]
        return text

    def _could_become_a_stop(self) -> int:
        """How many characters at the end are the beginning of a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        return next(
            (
                length
                for length in range(min(longest, len(self._held)), 0, -1)
                if any(stop.startswith(self._held[-length:]) for stop in self._stops)
            ),
            0,
        )
