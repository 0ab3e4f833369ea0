"""Layer 1, the contract: what crosses a process boundary. Imports nothing of ours.

The pydantic models here are the one source. `python -m schemas.generate` writes the Avro schemas
(`schemas/avro/*.avsc`) and the AsyncAPI document (`schemas/asyncapi.json`) from them; both are committed, and
tests hold them against drift and against changes that would break a reader.
"""

from schemas.attempt import Attempt
from schemas.base import Record
from schemas.command import Command
from schemas.dead_letter import DeadLetter, DeadLetterMark
from schemas.delta import Delta
from schemas.lane_report import LaneReport
from schemas.request import LLMRequest
from schemas.result import LLMResult
from schemas.status import StatusEvent
from schemas.task import LaneTask

RECORDS: tuple[type[Record], ...] = (
    LLMRequest,
    LaneTask,
    LLMResult,
    StatusEvent,
    Delta,
    Attempt,
    DeadLetter,
    Command,
    LaneReport,
    DeadLetterMark,
)

__all__ = [
    "RECORDS",
    "Attempt",
    "Command",
    "DeadLetter",
    "DeadLetterMark",
    "Delta",
    "LLMRequest",
    "LLMResult",
    "LaneReport",
    "LaneTask",
    "Record",
    "StatusEvent",
]
