"""Anthropic's Messages API on the wire."""

import json
from typing import Any

from tests.support.fault_wire import REQUEST_ID, SERVED_MODEL, USAGE, Asked, Ending, Fault

_STOP_REASONS = {
    Ending.WHOLE: "end_turn",
    Ending.AT_THE_LIMIT: "max_tokens",
    Ending.REFUSED: "refusal",
    Ending.UNHEARD_OF: "brand_new_reason",
}
_ERRORS: dict[Fault, tuple[int, str, str]] = {
    Fault.PLAIN: (400, "some_error", "As the status says"),
    Fault.CONTEXT_LENGTH: (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
    Fault.PROMPT_FILTERED: (400, "invalid_request_error", "Output blocked by content filtering policy"),
    Fault.QUOTA: (400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
    Fault.RATE_LIMIT: (429, "rate_limit_error", "This request would exceed your account's rate limit."),
    Fault.OVERLOADED: (529, "overloaded_error", "Overloaded"),
    Fault.SERVER_ERROR: (500, "api_error", "Internal server error"),
    Fault.UNKNOWN_MODEL: (404, "not_found_error", "model: no-such-model"),
}
_CACHE_WRITTEN = 2
_USAGE_AT_START = {
    "input_tokens": USAGE.input_tokens - USAGE.cached_input_tokens - _CACHE_WRITTEN,
    "cache_creation_input_tokens": _CACHE_WRITTEN,
    "cache_read_input_tokens": USAGE.cached_input_tokens,
    "output_tokens": 1,
}


class AnthropicWire:
    """`POST /v1/messages`. It has no content filter that ends an answer: that is a refusal, or an error."""

    path = ""
    request_id_header = "request-id"
    call_id = REQUEST_ID
    key_header = "authorization"

    def asked(self, path: str, body: dict[str, Any]) -> Asked:
        return Asked(
            model=body["model"],
            streamed=body.get("stream", False),
            prompt=body["messages"][-1]["content"],
            by_tool="tools" in body,
        )

    def models(self) -> str:
        return json.dumps({"data": [{"id": SERVED_MODEL, "type": "model"}], "has_more": False})

    def whole(self, text: str | None, ending: Ending, asked: Asked) -> str:
        block: dict[str, Any] = {"type": "text", "text": text}
        if asked.by_tool and text is not None:
            block = {"type": "tool_use", "id": "toolu_1", "name": "answer", "input": json.loads(text)}
        content = [] if ending is Ending.REFUSED else [block]
        usage = _USAGE_AT_START | {"output_tokens": USAGE.output_tokens}
        return json.dumps(_message() | {"content": content, "usage": usage} | _end(ending, asked))

    def opening(self, asked: Asked) -> list[str]:
        block: dict[str, Any] = {"type": "text", "text": ""}
        if asked.by_tool:
            block = {"type": "tool_use", "id": "toolu_1", "name": "answer", "input": {}}
        return [
            _event("message_start", message=_message() | {"content": [], "usage": _USAGE_AT_START}),
            _event("content_block_start", index=0, content_block=block),
            self.keep_alive(),
        ]

    def piece(self, text: str, asked: Asked) -> str:
        delta = {"type": "text_delta", "text": text}
        if asked.by_tool:
            delta = {"type": "input_json_delta", "partial_json": text}
        return _event("content_block_delta", index=0, delta=delta)

    def ending(self, ending: Ending, asked: Asked) -> list[str]:
        return [
            _event("content_block_stop", index=0),
            _event("message_delta", delta=_end(ending, asked), usage={"output_tokens": USAGE.output_tokens}),
            _event("message_stop"),
        ]

    def closing(self) -> list[str]:
        return []

    def keep_alive(self) -> str:
        return _event("ping")

    def event(self, data: str) -> str:
        return f"event: content_block_delta\ndata: {data}\n\n"

    def error(self, fault: Fault, status: int | None, message: str | None) -> tuple[int, str]:
        default_status, kind, words = _ERRORS[fault]
        error = {"type": kind, "message": message or words}
        return status or default_status, json.dumps({"type": "error", "error": error})

    def error_event(self, fault: Fault) -> str:
        return f"event: error\ndata: {self.error(fault, None, None)[1]}\n\n"


def _message() -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": SERVED_MODEL,
        "stop_reason": None,
        "stop_sequence": None,
    }


def _end(ending: Ending, asked: Asked) -> dict[str, Any]:
    whole = ending is Ending.WHOLE
    return {"stop_reason": "tool_use" if whole and asked.by_tool else _STOP_REASONS[ending], "stop_sequence": None}


def _event(kind: str, **fields: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | fields)}\n\n"
