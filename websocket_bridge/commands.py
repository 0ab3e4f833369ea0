"""What a client may ask for: JSON text to a typed command, or to the error that answers it."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator
from pydantic_core import from_json

from schemas.base import Identifier

MAX_FIELD_NAME_CHARACTERS = 100

_Number = Annotated[int, Field(strict=True, ge=0, le=2**53 - 1)]
_Text = Annotated[str, Field(strict=True, min_length=1, max_length=64)]
CommandId = _Number | _Text
RequestIds = Annotated[list[Identifier], Field(max_length=10_000)]


class _Command(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: CommandId


class _Selection(_Command):
    """Which requests a command is about: some by id, or all."""

    request_ids: RequestIds = Field(default_factory=list)
    all: StrictBool = False

    @model_validator(mode="after")
    def _names_some_or_all(self) -> Self:
        if self.all == bool(self.request_ids):
            raise ValueError("request_ids: give request_ids, or all=true, and not both")
        return self


class Subscribe(_Selection):
    """Follow requests. `deltas`: their answers as well, as they arrive."""

    type: Literal["subscribe"]
    deltas: StrictBool = False


class Unsubscribe(_Selection):
    """Follow them no longer."""

    type: Literal["unsubscribe"]


class Ping(_Command):
    """Is anybody there? Browsers cannot send WebSocket pings of their own."""

    type: Literal["ping"]


Command = Subscribe | Unsubscribe | Ping

_COMMANDS: dict[str, type[Command]] = {"subscribe": Subscribe, "unsubscribe": Unsubscribe, "ping": Ping}

ErrorCode = Literal["invalid_json", "invalid_command", "unknown_type", "all_refused", "too_many_subscriptions"]


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
