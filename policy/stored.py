"""States as compact JSON, for values that workers share."""

from typing import Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

S = TypeVar("S")


class StoredAs(Generic[S]):
    """The form of a frozen dataclass whose fields all have defaults. What is at its default is left out."""

    def __init__(self, kind: type[S]) -> None:
        self._fresh = kind()
        self._adapter: TypeAdapter[S] = TypeAdapter(kind)

    def packed(self, state: S) -> bytes | None:
        """None: a fresh state is not stored."""
        return None if state == self._fresh else self._adapter.dump_json(state, exclude_defaults=True)

    def unpacked(self, stored: bytes | None) -> S:
        """A fresh state for None, and for what cannot be read: another version's, or somebody's hand."""
        if stored is None:
            return self._fresh
        try:
            return self._adapter.validate_json(stored)
        except ValidationError:
            return self._fresh
