"""DeadLetter: what a record of `llm.requests.dlt` tells. DeadLetterMark: what became of it.

The record itself keeps the key, value and headers that came in; this is read from the headers added to it.
"""

from pydantic import Field

from schemas.base import Record, Timestamp
from schemas.vocabulary import DeadLetterAction, FailureCategory


class DeadLetter(Record):
    """Where a dead letter came from and why. `request_id` is absent when it could not be read."""

    request_id: str | None = None
    tenant_id: str | None = None
    category: FailureCategory = FailureCategory.UNKNOWN
    message: str
    field: str | None = None
    original_topic: str
    original_partition: int = Field(ge=0)
    original_offset: int = Field(ge=0)
    original_timestamp: Timestamp | None = None
    redrive_count: int = Field(default=0, ge=0, description="how often the request was redriven before it came here")
    state_version: int = Field(default=0, ge=0, description="of the event that ended it; a redriven life goes on above")
    attempt: int = Field(default=0, ge=0, description="number of its last call; a redriven life goes on above")
    provider: str | None = None
    model: str | None = None
    size_bytes: int = Field(ge=0)


class DeadLetterMark(Record):
    """What was done with the dead letter of this partition and offset. The key is `<partition>-<offset>`; compacted."""

    partition: int = Field(ge=0)
    offset: int = Field(ge=0)
    action: DeadLetterAction
    at: Timestamp
    by: str | None = Field(default=None, max_length=200)
    request_id: str | None = None
