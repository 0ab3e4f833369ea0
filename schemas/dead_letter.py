"""DeadLetter: how a record of `llm.requests.dlt` is described to people and programs.

The record itself keeps the key, value and headers that came in; this is read from the headers added to it.
"""

from pydantic import Field

from schemas.base import Record, Timestamp
from schemas.vocabulary import FailureCategory


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
    redrive_count: int = Field(default=0, ge=0)
    size_bytes: int = Field(ge=0)
