"""Puts an answer together from what the OpenAI SDK returns, and says how it ended.

The SDK builds its objects without checking them: a page of HTML comes as a `str`, `{}` as a completion whose choices
are None, and a stream that was cut off just ends. So nothing is taken for an answer until its `finish_reason` came.
"""

from typing import Any

from connectors.providers.base import Answered, Failed
from policy.failures import problem
from schemas.attempt import Usage
from schemas.vocabulary import FailureCategory

_MAX_REQUEST_ID_CHARACTERS = 200


class MalformedAnswerError(ValueError):
    """What came with status 200 is not of the form that the API promises."""


class ErrorBodyError(Exception):
    """An error came in the body of a response with status 200."""

    def __init__(self, body: object) -> None:
        super().__init__("an error with status 200")
        self.body = body


class AnswerInProgress:
    """One answer while it arrives, in pieces or at once."""

    def __init__(self, *, asked_model: str, streamed: bool) -> None:
        self._streamed = streamed
        self._texts: list[str] = []
        self._refused = False
        self._finish_reason: str | None = None
        self._model = asked_model
        self._usage: Usage | None = None
        self._response_id: str | None = None
        self._request_id: str | None = None
        self.begun = False
        """The provider said 200: from here on the call may be on the bill."""

    @property
    def text_begun(self) -> bool:
        return any(self._texts)

    @property
    def complete(self) -> bool:
        """Whether the end came. What goes wrong after it (a reset instead of `[DONE]`) takes nothing away."""
        return self._finish_reason is not None

    @property
    def request_id(self) -> str | None:
        """The provider's name for this call: from the header, else the completion's own id."""
        found = self._request_id or self._response_id
        return found[:_MAX_REQUEST_ID_CHARACTERS] if found else None

    def begin(self, *, request_id: str | None, content_type: str) -> None:
        """The headers are there."""
        self.begun = True
        self._request_id = request_id
        if self._streamed and content_type and not content_type.lower().startswith("text/event-stream"):
            raise MalformedAnswerError(f"a stream was asked for, and {content_type.partition(';')[0]} came")

    def add_chunk(self, chunk: object) -> str:
        """Takes the next object of a stream. Returns the text in it."""
        return self._add(chunk, "delta")

    def add_completion(self, completion: object) -> None:
        """Takes the object of a response that was not streamed."""
        self._add(completion, "message")

    def outcome(self) -> Answered | Failed:
        """How the call ended, now that nothing more will come."""
        if self._finish_reason is None:
            return self._failed(FailureCategory.TRUNCATED, "the stream ended before the answer did: no finish_reason")
        if self._refused:
            return self._failed(FailureCategory.REFUSAL, "the model refused to answer")
        if self._finish_reason == "length":
            return self._failed(
                FailureCategory.TRUNCATED,
                "the answer was cut off at the limit of output tokens",
                retryable=False,
                remedy="raise parameters.max_tokens (reasoning counts towards it), or ask for less",
            )
        if self._finish_reason == "content_filter":
            return self._failed(FailureCategory.CONTENT_FILTER, "the provider's content filter cut the answer off")
        if self._finish_reason != "stop" or not self._texts:
            return self._failed(
                FailureCategory.MALFORMED, f"no answer in text: finish_reason {self._finish_reason[:40]!r}"
            )
        return Answered(
            text="".join(self._texts),
            finish_reason=self._finish_reason,
            model=self._model,
            usage=self._usage,
            provider_request_id=self.request_id,
        )

    def _failed(
        self, category: FailureCategory, message: str, *, retryable: bool | None = None, remedy: str | None = None
    ) -> Failed:
        return Failed(
            problem=problem(category, message, retryable=retryable, remedy=remedy, provider_code=self._finish_reason),
            possibly_billed=True,
            usage=self._usage,
            provider_request_id=self.request_id,
        )

    def _add(self, thing: object, part: str) -> str:
        error = getattr(thing, "error", None)
        if error or getattr(thing, "object", None) == "error":  # the second is vLLM's older form
            raise ErrorBodyError(error or {name: getattr(thing, name, None) for name in ("message", "type", "code")})
        choices = getattr(thing, "choices", None)
        if not isinstance(choices, list):
            raise MalformedAnswerError(f"what came is no completion, but {type(thing).__name__} without choices")
        self._model = _text(thing, "model") or self._model
        self._response_id = _text(thing, "id") or self._response_id
        self._usage = _usage(getattr(thing, "usage", None)) or self._usage
        if not choices:
            return ""  # the last chunk of a stream carries usage alone
        choice = choices[0]
        content = getattr(choice, part, None)
        text = _text(content, "content")
        if text is not None:
            self._texts.append(_encodable(text))
        self._refused = self._refused or bool(_text(content, "refusal"))
        # Last, so that nothing counts as complete that could not be read.
        self._finish_reason = _text(choice, "finish_reason") or self._finish_reason
        return text or ""


def _text(thing: object, name: str) -> str | None:
    value = getattr(thing, name, None)
    if value is None or isinstance(value, str):
        return value
    raise MalformedAnswerError(f"{name} is of type {type(value).__name__}")


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise MalformedAnswerError("the text holds half a character") from error
    return text


def _usage(reported: Any) -> Usage | None:
    """Tokens as reported, or None for a report that makes no sense: the answer counts, not its accounts."""
    details = getattr(reported, "prompt_tokens_details", None)
    try:
        return Usage.model_validate(
            {
                "input_tokens": getattr(reported, "prompt_tokens", None),
                "output_tokens": getattr(reported, "completion_tokens", None),
                "cached_input_tokens": getattr(details, "cached_tokens", None) or 0,
            },
            strict=True,
        )
    except ValueError:
        return None
