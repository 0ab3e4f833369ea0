"""Command: what is asked of the pipeline about requests that were sent before, in `llm.commands`."""

from typing import Self

from pydantic import Field, model_validator

from schemas.base import Identifier, Record, Timestamp
from schemas.vocabulary import CommandAction


class Command(Record):
    """Cancels requests by request_id, tenant_id or correlation_id; where several are given, all must fit.

    It concerns what was submitted before `issued_at`, wherever it is; nothing that is sent later. Nobody is believed to
    have issued it more than a few seconds after its record was written.
    """

    command_id: Identifier
    action: CommandAction = CommandAction.CANCEL
    request_id: Identifier | None = None
    tenant_id: Identifier | None = None
    correlation_id: Identifier | None = None
    reason: str | None = Field(default=None, max_length=500)
    issued_at: Timestamp
    issued_by: str | None = Field(default=None, max_length=200)

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if self.request_id is None and self.tenant_id is None and self.correlation_id is None:
            raise ValueError("request_id: name a request_id, tenant_id or correlation_id")
        return self
