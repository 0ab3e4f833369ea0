"""Google's Gemini API on the wire."""

import json
import re
from typing import Any

from tests.support.fault_wire import SERVED_MODEL, USAGE, Asked, Ending, Fault

_FINISH_REASONS = {
    Ending.WHOLE: "STOP",
    Ending.AT_THE_LIMIT: "MAX_TOKENS",
    Ending.FILTERED: "SAFETY",
    Ending.UNHEARD_OF: "BRAND_NEW_REASON",
}
_PER_DAY = "GenerateRequestsPerDayPerProjectPerModel"
_PER_MINUTE = "GenerateRequestsPerMinutePerProjectPerModel"
_ERRORS: dict[Fault, tuple[int, str, str, list[dict[str, Any]]]] = {
    Fault.PLAIN: (400, "UNKNOWN", "As the status says", []),
    Fault.CONTEXT_LENGTH: (
        *(400, "INVALID_ARGUMENT"),
        *("The input token count (1200293) exceeds the maximum number of tokens allowed (1048576).", []),
    ),
    Fault.QUOTA: (
        *(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan."),
        [{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": _PER_DAY}]}],
    ),
    Fault.RATE_LIMIT: (
        *(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan."),
        [{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": _PER_MINUTE}]}],
    ),
    Fault.OVERLOADED: (503, "UNAVAILABLE", "The model is overloaded. Please try again later.", []),
    Fault.SERVER_ERROR: (500, "INTERNAL", "An internal error has occurred.", []),
    Fault.UNKNOWN_MODEL: (404, "NOT_FOUND", "models/no-such-model is not found for API version v1", []),
}
_RESPONSE_ID = "response-1"
_THOUGHT_TOKENS = 1
_USAGE = {
    "promptTokenCount": USAGE.input_tokens,
    "cachedContentTokenCount": USAGE.cached_input_tokens,
    "candidatesTokenCount": USAGE.output_tokens - _THOUGHT_TOKENS,
    "thoughtsTokenCount": _THOUGHT_TOKENS,
    "totalTokenCount": USAGE.total_tokens,
}
_PATH = re.compile(r"/\w+/models/(?P<model>[^:]+):(?P<method>generateContent|streamGenerateContent\?alt=sse)")


class GeminiWire:
    """`POST /v1/models/MODEL:generateContent`. A refused prompt is one that was blocked: there is no candidate."""

    path = ""
    request_id_header = None
    call_id = _RESPONSE_ID
    key_header = "x-goog-api-key"

    def asked(self, path: str, body: dict[str, Any]) -> Asked:
        found = _PATH.fullmatch(path)
        assert found, path
        prompt = body["contents"][-1]["parts"][-1]["text"]
        return Asked(model=found["model"], streamed=found["method"].startswith("stream"), prompt=prompt)

    def models(self) -> str:
        return json.dumps({"models": [{"name": f"models/{SERVED_MODEL}"}]})

    def whole(self, text: str | None, ending: Ending, asked: Asked) -> str:
        return json.dumps(_response(text, ending))

    def opening(self, asked: Asked) -> list[str]:
        thought = {"content": {"parts": [{"text": "Hm.", "thought": True}], "role": "model"}, "index": 0}
        return [_event(json.dumps(_head() | {"candidates": [thought]}))]

    def piece(self, text: str, asked: Asked) -> str:
        return _event(json.dumps(_response(text, None)))

    def ending(self, ending: Ending, asked: Asked) -> list[str]:
        return [_event(json.dumps(_response("", ending)))]

    def closing(self) -> list[str]:
        return []

    def keep_alive(self) -> str:
        return _event(json.dumps(_head()))

    def event(self, data: str) -> str:
        return _event(data)

    def error(self, fault: Fault, status: int | None, message: str | None) -> tuple[int, str]:
        if fault is Fault.PROMPT_FILTERED:
            return 200, json.dumps(_response(None, Ending.REFUSED))
        default_status, word, words, details = _ERRORS[fault]
        code = status or default_status
        return code, json.dumps(
            {"error": {"code": code, "message": message or words, "status": word, "details": details}}
        )

    def error_event(self, fault: Fault) -> str:
        return _event(self.error(fault, None, None)[1])


def _head() -> dict[str, Any]:
    return {"modelVersion": SERVED_MODEL, "responseId": _RESPONSE_ID, "usageMetadata": _USAGE}


def _response(text: str | None, ending: Ending | None) -> dict[str, Any]:
    if ending is Ending.REFUSED:
        return _head() | {"promptFeedback": {"blockReason": "SAFETY"}}
    content: dict[str, Any] = {"role": "model"} if text is None else {"parts": [{"text": text}], "role": "model"}
    candidate: dict[str, Any] = {"content": content, "index": 0}
    if ending is not None:
        candidate["finishReason"] = _FINISH_REASONS[ending]
    return _head() | {"candidates": [candidate]}


def _event(data: str) -> str:
    return f"data: {data}\r\n\r\n"
