"""Where the bridge is in Kafka: what it has read and shown, by partition, as a position and its token. Pure."""

from collections.abc import Mapping

from websocket_bridge.position import Place, Position
from websocket_bridge.recent import Spot

SHORT_TOKEN_CHARACTERS = 256
"""Up to this length each push carries the token: it costs less than a push of its own."""
LONG_TOKEN_EVERY_SECONDS = 1.0


class Cursor:
    """`token` is None until `begin`: nothing was read yet."""

    def __init__(self) -> None:
        self.epoch: bytes | None = None
        self.offsets: dict[Place, int] = {}
        self.ends: dict[Place, int] = {}
        self.ends_looked_up_at = float("-inf")
        self._token: str | None = None
        self._last_long_token_at = float("-inf")

    @property
    def token(self) -> str | None:
        if self._token is None and self.epoch is not None:
            self._token = Position(self.epoch, self.offsets).token
        return self._token

    def begin(self, epoch: bytes, offsets: Mapping[Place, int]) -> None:
        """Reading begins, or goes on, here. Offsets never go back."""
        self.epoch = epoch
        for place, offset in offsets.items():
            self.offsets[place] = max(offset, self.offsets.get(place, 0))
        self._token = None

    def clear(self) -> None:
        """As before `begin`."""
        self.epoch = self._token = None
        self.offsets.clear()
        self.ends.clear()
        self.ends_looked_up_at = float("-inf")

    def advance(self, spot: Spot) -> None:
        self.offsets[spot.place] = spot.offset + 1
        self._token = None

    def see_ends(self, ends: Mapping[Place, int], *, now: float) -> None:
        """How far Kafka is. `now` is when the look-up began."""
        self.ends.update(ends)
        self.ends_looked_up_at = now

    def token_for_push(self, *, now: float) -> str | None:
        """The token where a push should carry it now."""
        token = self.token
        if token is None or len(token) <= SHORT_TOKEN_CHARACTERS:
            return token
        if now - self._last_long_token_at < LONG_TOKEN_EVERY_SECONDS:
            return None
        self._last_long_token_at = now
        return token
