"""Reads the objects of the Anthropic SDK into an answer: a message, or the events of a stream.

Events of types that are not known are passed over, as Anthropic's versioning policy asks. A stream is whole only after
its `message_stop`: the SDK ends one that was cut off without a word.
"""

import json
from typing import Any

from connectors.providers.answer_draft import (
    CONTEXT_FULL,
    CUT_AT_THE_LIMIT,
    REFUSED,
    AnswerDraft,
    BadEnd,
    ErrorBodyError,
    MalformedAnswerError,
    usage_of,
)
from connectors.providers.base import Answered, Failed
from schemas.vocabulary import FailureCategory

BAD_ENDS: dict[str, BadEnd] = {
    "max_tokens": CUT_AT_THE_LIMIT,
    "model_context_window_exceeded": CONTEXT_FULL,
    "refusal": REFUSED,
    "pause_turn": BadEnd(
        category=FailureCategory.TRUNCATED, message="the provider paused a long turn before the answer was whole"
    ),
}
"""By `stop_reason`."""

GOOD_ENDS = frozenset({"end_turn", "stop_sequence"})
GOOD_ENDS_WITH_A_TOOL = GOOD_ENDS | {"tool_use"}
"""Where the one tool is the form of the answer."""


class AnthropicAnswer:
    """One answer while it arrives. `by_tool`: its text is the input of a tool that was forced."""

    def __init__(self, draft: AnswerDraft, *, by_tool: bool) -> None:
        self.draft = draft
        self._by_tool = by_tool
        self._stop_reason: str | None = None
        self._tokens: dict[str, Any] = {}

    def add_message(self, message: object) -> None:
        """Takes the object of a response that was not streamed."""
        if getattr(message, "type", None) == "error" or getattr(message, "error", None):
            raise ErrorBodyError({"error": getattr(message, "error", None)})
        content = getattr(message, "content", None)
        if not isinstance(content, list):
            raise MalformedAnswerError("what came is no message: it has no content")
        self._add_head(message)
        for block in content:
            if self._by_tool and getattr(block, "type", None) == "tool_use":
                self.draft.add(json.dumps(getattr(block, "input", None), ensure_ascii=False))
            elif not self._by_tool and getattr(block, "type", None) == "text":
                self.draft.add(_text(block, "text"))
        # Last, so that nothing counts as whole that could not be read.
        self.draft.end = _text(message, "stop_reason") or None

    def add_event(self, event: object) -> str:
        """Takes the next event of a stream. Returns the text in it."""
        match getattr(event, "type", None):
            case "content_block_delta":
                return self._add_delta(getattr(event, "delta", None))
            case "content_block_start":
                block = getattr(event, "content_block", None)
                return "" if self._by_tool else self.draft.add(_text(block, "text"))
            case "message_start":
                self._add_head(getattr(event, "message", None))
            case "message_delta":
                self._stop_reason = _text(getattr(event, "delta", None), "stop_reason") or self._stop_reason
                self._add_usage(getattr(event, "usage", None))
            case "message_stop":
                self.draft.end = self._stop_reason
            case kind if not isinstance(kind, str):
                raise MalformedAnswerError("what came is no event of a message")
        return ""

    def outcome(self) -> Answered | Failed:
        """How the call ended, now that nothing more will come."""
        return self.draft.outcome(BAD_ENDS, good_ends=GOOD_ENDS_WITH_A_TOOL if self._by_tool else GOOD_ENDS)

    def _add_delta(self, delta: object) -> str:
        wanted, name = ("input_json_delta", "partial_json") if self._by_tool else ("text_delta", "text")
        return self.draft.add(_text(delta, name)) if getattr(delta, "type", None) == wanted else ""

    def _add_head(self, message: object) -> None:
        self.draft.model = _text(message, "model") or self.draft.model
        self.draft.response_id = _text(message, "id") or self.draft.response_id
        self._add_usage(getattr(message, "usage", None))

    def _add_usage(self, reported: object) -> None:
        """Counts so far. In a stream each later report replaces what it repeats."""
        for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens"):
            count = getattr(reported, name, None)
            if count is not None:
                self._tokens[name] = count
        if not self._tokens:
            return
        read = self._tokens.get("cache_read_input_tokens", 0)
        try:
            # Anthropic counts what went through its cache apart; ours is the sum, with the cached part named.
            total = self._tokens.get("input_tokens", 0) + self._tokens.get("cache_creation_input_tokens", 0) + read
        except TypeError:
            return
        self.draft.usage = usage_of(
            input_tokens=total, output_tokens=self._tokens.get("output_tokens"), cached_input_tokens=read
        )


def _text(thing: object, name: str) -> str:
    value = getattr(thing, name, None)
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise MalformedAnswerError(f"{name} is of type {type(value).__name__}")
