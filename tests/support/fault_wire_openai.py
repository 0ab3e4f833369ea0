"""OpenAI's chat completions on the wire."""

import json
from typing import Any

from tests.support.fault_wire import REQUEST_ID, SERVED_MODEL, USAGE, Asked, Ending, Fault

_FINISH_REASONS = {
    Ending.WHOLE: "stop",
    Ending.AT_THE_LIMIT: "length",
    Ending.FILTERED: "content_filter",
    Ending.REFUSED: "stop",
    Ending.UNHEARD_OF: "tool_calls",
}
_ERRORS: dict[Fault, tuple[int, str, str | None, str]] = {
    Fault.PLAIN: (400, "some_error", None, "As the status says"),
    Fault.CONTEXT_LENGTH: (400, "invalid_request_error", "context_length_exceeded", "Too long"),
    Fault.PROMPT_FILTERED: (400, "invalid_request_error", "content_filter", "The prompt was flagged"),
    Fault.QUOTA: (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota"),
    Fault.RATE_LIMIT: (429, "requests", "rate_limit_exceeded", "Slow down"),
    Fault.OVERLOADED: (503, "overloaded_error", None, "no capacity"),
    Fault.SERVER_ERROR: (500, "server_error", None, "The server had an error"),
    Fault.UNKNOWN_MODEL: (404, "invalid_request_error", "model_not_found", "The model does not exist"),
}
_USAGE = {
    "prompt_tokens": USAGE.input_tokens,
    "completion_tokens": USAGE.output_tokens,
    "total_tokens": USAGE.total_tokens,
    "prompt_tokens_details": {"cached_tokens": USAGE.cached_input_tokens},
}
_REFUSAL = "I would rather not."


class OpenAIWire:
    """`POST .../chat/completions`."""

    path = "/v1"
    request_id_header = "x-request-id"
    call_id = REQUEST_ID
    key_header = "authorization"

    def asked(self, path: str, body: dict[str, Any]) -> Asked:
        return Asked(
            model=body["model"], streamed=body.get("stream", False), prompt=str(body["messages"][-1]["content"])
        )

    def models(self) -> str:
        return json.dumps({"object": "list", "data": [{"id": SERVED_MODEL, "object": "model", "created": 1}]})

    def whole(self, text: str | None, ending: Ending, asked: Asked) -> str:
        message = {"role": "assistant", "content": text, "refusal": None}
        if ending is Ending.REFUSED:
            message |= {"content": None, "refusal": _REFUSAL}
        choice = {"index": 0, "message": message, "finish_reason": _FINISH_REASONS[ending], "logprobs": None}
        return json.dumps(_head("chat.completion") | {"choices": [choice], "usage": _USAGE})

    def opening(self, asked: Asked) -> list[str]:
        return [_chunk({"role": "assistant", "content": "", "refusal": None})]

    def piece(self, text: str, asked: Asked) -> str:
        return _chunk({"content": text})

    def ending(self, ending: Ending, asked: Asked) -> list[str]:
        refusal = [_chunk({"refusal": _REFUSAL})] if ending is Ending.REFUSED else []
        return [*refusal, _chunk({}, _FINISH_REASONS[ending])]

    def closing(self) -> list[str]:
        accounts = _head("chat.completion.chunk") | {"choices": [], "usage": _USAGE}
        return [_event(json.dumps(accounts)), _event("[DONE]")]

    def keep_alive(self) -> str:
        return ": keep-alive\n\n"

    def event(self, data: str) -> str:
        return _event(data)

    def error(self, fault: Fault, status: int | None, message: str | None) -> tuple[int, str]:
        default_status, kind, code, words = _ERRORS[fault]
        error = {"message": message or words, "type": kind, "param": None, "code": code}
        return status or default_status, json.dumps({"error": error})

    def error_event(self, fault: Fault) -> str:
        return _event(self.error(fault, None, None)[1])


def _head(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": SERVED_MODEL}


def _chunk(delta: dict[str, Any], finish_reason: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
    return _event(json.dumps(_head("chat.completion.chunk") | {"choices": [choice], "usage": None}))


def _event(data: str) -> str:
    return f"data: {data}\n\n"
