"""A recorded call: one readable JSON file, written by `recorder` and played back by `replay`."""

import hashlib
import json
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat

from connectors.providers.base import Answered, Call, Failed


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Piece(_Form):
    """A piece of a stream, and when it came."""

    at_ms: NonNegativeFloat
    text: str


class Recording(_Form):
    """What was asked, what came and when. Neither `answered` nor `failed`: the caller left before the end."""

    format: Literal["sluice-recording-1"] = "sluice-recording-1"
    recorded_at: datetime
    provider: str
    key: str = Field(description="of what was asked: see `key_of`")
    call: Call
    pieces: list[Piece] = Field(default_factory=list)
    ended_after_ms: NonNegativeFloat
    answered: Answered | None = None
    failed: Failed | None = None

    @property
    def outcome(self) -> Answered | Failed | None:
        return self.answered or self.failed


def key_of(call: Call) -> str:
    """The same for two calls that ask the same of the same model, whoever asks, and whether streamed or not."""
    asked = {
        "model": call.model,
        "messages": [message.model_dump(mode="json") for message in call.messages],
        "parameters": call.parameters.model_dump(mode="json"),
        "response_schema": call.response_schema,
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
