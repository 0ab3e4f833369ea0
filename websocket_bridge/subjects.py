"""What can be followed, as keys: of the index from happenings to those who follow them. Pure."""

from dataclasses import dataclass, field
from typing import NamedTuple

from websocket_bridge.commands import Selection, Where


class Subject(NamedTuple):
    """One thing that is followed: a kind and a value."""

    kind: str
    value: str


ALL = Subject("all", "")
LANES = Subject("lanes", "")
DEAD_LETTERS = Subject("dead_letters", "")


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose a request is. `user_id` and `correlation_id` are None where it has none, or nobody knows yet.

    `subjects` are all by which the request can be followed.
    """

    request_id: str
    tenant_id: str
    user_id: str | None = None
    correlation_id: str | None = None
    subjects: tuple[Subject, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found = [Subject("request", self.request_id)]
        if self.correlation_id is not None:
            found.append(Subject("correlation", self.correlation_id))
        if self.user_id is not None:
            found.append(Subject("user", self.user_id))
        object.__setattr__(self, "subjects", (*found, Subject("tenant", self.tenant_id), ALL))


@dataclass(frozen=True, slots=True)
class Options:
    """What is wanted of a subject. The two without a filter are shared by all who follow."""

    deltas: bool = False
    where: Where | None = None


PLAIN, WITH_DELTAS = Options(), Options(deltas=True)


def options_of(*, deltas: bool, where: Where) -> Options:
    """Options, shared where they can be: thousands of clients want the same."""
    if where.narrows:
        return Options(deltas, where)
    return WITH_DELTAS if deltas else PLAIN


def subjects_of(selection: Selection) -> tuple[Subject, ...]:
    """What a selection of a command names, each once."""
    if selection.request_ids:
        return tuple(Subject("request", request_id) for request_id in dict.fromkeys(selection.request_ids))
    for kind in ("correlation", "user", "tenant"):
        value = getattr(selection, f"{kind}_id")
        if value is not None:
            return (Subject(kind, value),)
    if selection.all:
        return (ALL,)
    return (LANES,) if selection.lanes else (DEAD_LETTERS,)
