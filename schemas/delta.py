"""Delta: a piece of an answer as it arrives, in `llm.deltas`."""

from pydantic import Field

from schemas.base import Identifier, Record


class Delta(Record):
    """Text number `seq` (from 0) of one attempt. A delta of a later attempt voids those of the earlier ones."""

    request_id: Identifier
    tenant_id: Identifier = "default"
    attempt: int = Field(ge=1)
    seq: int = Field(ge=0)
    text: str
    supersedes_attempt: int | None = Field(default=None, description="set on seq 0 of a later attempt")
