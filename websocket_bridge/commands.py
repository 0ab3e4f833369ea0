"""What a client may ask for: JSON text to a typed command, or to the error that answers it."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator
from pydantic_core import from_json

from schemas.base import Identifier, ProviderName
from schemas.vocabulary import State
from websocket_bridge.position import MAX_TOKEN_CHARACTERS

MAX_FIELD_NAME_CHARACTERS = 100
MAX_TICKET_CHARACTERS = 8_192
MAX_REQUEST_IDS_PER_COMMAND = 10_000
MAX_SUBSCRIPTIONS_PER_RESUME = 100

_Number = Annotated[int, Field(strict=True, ge=0, le=2**53 - 1)]
_Text = Annotated[str, Field(strict=True, min_length=1, max_length=64)]
CommandId = _Number | _Text
RequestIds = Annotated[list[Identifier], Field(max_length=MAX_REQUEST_IDS_PER_COMMAND)]
Ticket = Annotated[str, Field(min_length=1, max_length=MAX_TICKET_CHARACTERS)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Where(_Part):
    """Narrows a subscription: all that is given must fit; an empty list says nothing."""

    states: list[State] = Field(default_factory=list, max_length=len(State))
    providers: list[ProviderName] = Field(default_factory=list, max_length=100)
    tenant_ids: list[Identifier] = Field(default_factory=list, max_length=100)

    @property
    def narrows(self) -> bool:
        return bool(self.states or self.providers or self.tenant_ids)


class Selection(_Part):
    """What is followed. Exactly one of these."""

    request_ids: RequestIds = Field(default_factory=list)
    correlation_id: Identifier | None = None
    user_id: Identifier | None = None
    tenant_id: Identifier | None = None
    all: StrictBool = False
    lanes: StrictBool = False
    dead_letters: StrictBool = False

    @model_validator(mode="after")
    def _names_one_thing(self) -> Self:
        named = (self.request_ids, self.correlation_id, self.user_id, self.tenant_id)
        if sum(map(bool, (*named, self.all, self.lanes, self.dead_letters))) != 1:
            raise ValueError(
                "request_ids: give one of request_ids, correlation_id, user_id, tenant_id, all, lanes, dead_letters"
            )
        return self


class Subscription(Selection):
    """A selection, and what is wanted of it. `limit`: at most so many requests in the snapshot, newest first."""

    deltas: StrictBool = False
    where: Where = Where()
    limit: int | None = Field(default=None, strict=True, ge=1)

    @model_validator(mode="after")
    def _where_fits(self) -> Self:
        if self.where.narrows and (self.request_ids or self.lanes or self.dead_letters):
            raise ValueError("where: goes with correlation_id, user_id, tenant_id or all")
        return self


class _Command(_Part):
    id: CommandId


class Authenticate(_Command):
    """Says who the client is. The first command, unless the ticket came with the handshake."""

    type: Literal["authenticate"]
    ticket: Ticket


class Refresh(_Command):
    """A newer ticket of the same user, tenant and scope."""

    type: Literal["refresh"]
    ticket: Ticket


class Subscribe(_Command, Subscription):
    """Follow requests, lanes or dead letters. `deltas`: answers as well, as they arrive."""

    type: Literal["subscribe"]


class Unsubscribe(_Command, Selection):
    """Follow them no longer."""

    type: Literal["unsubscribe"]


class Resume(_Command):
    """Subscribe, and get what was missed since `token`."""

    type: Literal["resume"]
    token: str = Field(min_length=1, max_length=MAX_TOKEN_CHARACTERS)
    subscriptions: list[Subscription] = Field(min_length=1, max_length=MAX_SUBSCRIPTIONS_PER_RESUME)


class Ping(_Command):
    """Is anybody there? Browsers cannot send WebSocket pings of their own."""

    type: Literal["ping"]


Command = Authenticate | Refresh | Subscribe | Unsubscribe | Resume | Ping

_COMMANDS: dict[str, type[Command]] = {
    "authenticate": Authenticate,
    "refresh": Refresh,
    "subscribe": Subscribe,
    "unsubscribe": Unsubscribe,
    "resume": Resume,
    "ping": Ping,
}

ErrorCode = Literal[
    "invalid_json",
    "invalid_command",
    "unknown_type",
    "unauthenticated",
    "bad_ticket",
    "tickets_unavailable",
    "forbidden",
    "too_many_subscriptions",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandError:
    """Why a command is not carried out. `id` is None where the command has none that could be read."""

    code: ErrorCode
    message: str
    id: int | str | None = None
    field: str | None = None


def parse_command(text: str) -> Command | CommandError:
    """Never raises, whatever the text. Nothing of the text is repeated in a message, but for a field's name."""
    try:
        fields = from_json(text.encode(), allow_inf_nan=False)
    except ValueError as error:
        return CommandError(code="invalid_json", message=f"not JSON: {error}")
    if not isinstance(fields, dict):
        return CommandError(code="invalid_json", message="a command is a JSON object")
    command_id = _readable_id(fields.get("id"))
    kind = fields.get("type")
    command_type = _COMMANDS.get(kind) if isinstance(kind, str) else None
    if command_type is None:
        known = ", ".join(_COMMANDS)
        return CommandError(code="unknown_type", id=command_id, field="type", message=f"type is one of: {known}")
    try:
        return command_type.model_validate(fields)
    except ValidationError as error:
        field, message = _first(error)
        return CommandError(code="invalid_command", id=command_id, field=field, message=message)


def _readable_id(value: Any) -> int | str | None:
    """The id as far as it is one, so that even a bad command is answered by its id."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int) and 0 <= value < 2**53:
        return value
    return value if isinstance(value, str) and 0 < len(value) <= 64 else None


def _first(error: ValidationError) -> tuple[str | None, str]:
    detail = error.errors(include_url=False, include_input=False, include_context=False)[0]
    message = str(detail["msg"]).removeprefix("Value error, ")
    location = [part for part in detail["loc"] if part not in {"constrained-int", "constrained-str"}]
    field = ".".join(str(part) for part in location)[:MAX_FIELD_NAME_CHARACTERS]
    if not field and ": " in message:
        field, message = message.split(": ", 1)
    return field or None, message
