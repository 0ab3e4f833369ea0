"""What one API looks like on the wire, so that the fault server can tell the same story in each of them.

Text of server-sent events is complete, with the blank line that ends an event. Every answer costs `USAGE`, in whatever
terms the API counts.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol

from schemas.attempt import Usage

ANSWER = "Two words."
PIECES = ("Two ", "words.")
SERVED_MODEL = "served-model"
REQUEST_ID = "req_fault_server"
"""In whichever header the API has for it."""
USAGE = Usage(input_tokens=11, output_tokens=3, cached_input_tokens=4)


class Ending(Enum):
    """How an answer ends."""

    WHOLE = auto()
    AT_THE_LIMIT = auto()
    FILTERED = auto()
    REFUSED = auto()
    UNHEARD_OF = auto()


class Fault(Enum):
    """What an error says, each API in its own words. `PLAIN`: nothing but its status."""

    PLAIN = auto()
    CONTEXT_LENGTH = auto()
    PROMPT_FILTERED = auto()
    QUOTA = auto()
    RATE_LIMIT = auto()
    OVERLOADED = auto()
    SERVER_ERROR = auto()
    UNKNOWN_MODEL = auto()


@dataclass(frozen=True)
class Asked:
    """What a request asks for. `by_tool`: the answer is to be the input of a tool."""

    model: str
    streamed: bool
    prompt: str
    by_tool: bool = False


class Wire(Protocol):
    """One API."""

    path: str
    """What a base_url has after host and port."""
    request_id_header: str | None
    call_id: str
    """How the provider names a call that went well."""
    key_header: str

    def asked(self, path: str, body: dict[str, Any]) -> Asked: ...

    def models(self) -> str:
        """The body of a list of models: `SERVED_MODEL` alone."""
        ...

    def whole(self, text: str | None, ending: Ending, asked: Asked) -> str:
        """The body of an answer in one piece. No text: the field is there, and null."""
        ...

    def opening(self, asked: Asked) -> list[str]:
        """The events of a stream before the text."""
        ...

    def piece(self, text: str, asked: Asked) -> str: ...

    def ending(self, ending: Ending, asked: Asked) -> list[str]:
        """The events after the text, up to the one that makes the answer whole."""
        ...

    def closing(self) -> list[str]:
        """The events after that."""
        ...

    def keep_alive(self) -> str:
        """What the API sends while there is nothing to say."""
        ...

    def event(self, data: str) -> str:
        """An event amid the text, with this data."""
        ...

    def error(self, fault: Fault, status: int | None, message: str | None) -> tuple[int, str]:
        """Status and body of an error. Without a status or message: the API's own for this fault."""
        ...

    def error_event(self, fault: Fault) -> str: ...
