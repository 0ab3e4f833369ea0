"""Reads the JSON of chat completions into an `AnswerDraft`, and says what their words for the end mean."""

from typing import Any

from connectors.providers.answer_draft import (
    CUT_AT_THE_LIMIT,
    FILTERED,
    REFUSED,
    AnswerDraft,
    BadEnd,
    ErrorBodyError,
    MalformedAnswerError,
    usage_of,
)
from connectors.providers.base import Answered, Failed
from schemas.attempt import Usage
from schemas.vocabulary import FailureCategory

GOOD_ENDS = frozenset({"stop"})
BAD_ENDS: dict[str, BadEnd] = {
    "length": CUT_AT_THE_LIMIT,
    "content_filter": FILTERED,
    "refusal": REFUSED,
    "error": BadEnd(  # OpenRouter, where the provider behind it failed
        category=FailureCategory.SERVER_ERROR, message="the provider broke the answer off"
    ),
}
"""By `finish_reason`. A refusal has a field of its own in OpenAI's form, and then ends with `stop`."""


class ChatAnswer:
    """One answer while it arrives, in pieces or at once."""

    def __init__(self, *, asked_model: str, streamed: bool) -> None:
        self.draft = AnswerDraft(asked_model=asked_model, streamed=streamed, request_id_header="x-request-id")
        self._refused = False

    @property
    def complete(self) -> bool:
        """Whether the end came. What goes wrong after it (a reset instead of `[DONE]`) takes nothing away."""
        return self.draft.end is not None

    def outcome(self) -> Answered | Failed:
        """How the call ended, now that nothing more will come."""
        return self.draft.outcome(BAD_ENDS, good_ends=GOOD_ENDS)

    def add_chunk(self, chunk: object) -> str:
        """Takes the next JSON value of a stream. Returns the text in it."""
        return self._add(chunk, "delta")

    def add_completion(self, completion: object) -> None:
        """Takes the JSON value of a response that was not streamed."""
        self._add(completion, "message")

    def _add(self, thing: object, part: str) -> str:
        if not isinstance(thing, dict):
            raise MalformedAnswerError(f"what came is no completion, but JSON of type {type(thing).__name__}")
        if thing.get("error"):
            raise ErrorBodyError(thing["error"])
        if thing.get("object") == "error":  # vLLM's older form
            raise ErrorBodyError(thing)
        choices = thing.get("choices")
        if not isinstance(choices, list):
            raise MalformedAnswerError("what came is no completion: it has no choices")
        draft = self.draft
        draft.model = _text(thing, "model") or draft.model
        draft.response_id = _text(thing, "id") or draft.response_id
        draft.usage = _usage(thing.get("usage")) or draft.usage
        return self._add_choice(choices[0], part) if choices else ""  # the last of a stream carries usage alone

    def _add_choice(self, choice: object, part: str) -> str:
        if not isinstance(choice, dict):
            raise MalformedAnswerError("the choice is no object")
        if choice.get("error"):  # OpenRouter, of a provider behind it that failed amid the answer
            raise ErrorBodyError(choice["error"])
        content = choice.get(part)
        content = content if isinstance(content, dict) else {}
        text = self.draft.add(_text(content, "content") or "")
        self._refused = self._refused or bool(_text(content, "refusal"))
        # Last, so that nothing counts as complete that could not be read.
        end = _text(choice, "finish_reason")
        if end:
            self.draft.end = "refusal" if self._refused else end
        return text


def _text(thing: dict[str, Any], name: str) -> str | None:
    value = thing.get(name)
    if value is None or isinstance(value, str):
        return value
    raise MalformedAnswerError(f"{name} is of type {type(value).__name__}")


def _usage(reported: object) -> Usage | None:
    if not isinstance(reported, dict):
        return None
    details = reported.get("prompt_tokens_details")
    if not {"prompt_tokens", "completion_tokens"} <= reported.keys():
        return None  # not said is not zero
    return usage_of(
        input_tokens=reported.get("prompt_tokens"),
        output_tokens=reported.get("completion_tokens"),
        cached_input_tokens=details.get("cached_tokens") if isinstance(details, dict) else None,
    )
