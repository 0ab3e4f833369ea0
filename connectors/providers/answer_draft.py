"""An answer while it arrives, whichever SDK brings it: what came so far, and how the call ended.

Nothing is checked before it comes here. SDKs build their objects without looking (a page of HTML comes as a `str`, `{}`
as a message without content), and end a stream that was cut off as if it were whole. So nothing is taken for an
answer until the provider's own word for its end came.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from connectors.providers.base import Answered, Failed, RateLimit
from connectors.providers.rate_limit_headers import rate_limits
from policy.failures import problem
from schemas.attempt import Usage
from schemas.vocabulary import FailureCategory

FINISHED = "stop"
"""The one `finish_reason` of a whole answer: OpenAI's word, which readers of many providers know."""

_MAX_REQUEST_ID_CHARACTERS = 200
_MAX_END_CHARACTERS = 40


class MalformedAnswerError(ValueError):
    """What came with status 200 is not of the form that the API promises. The message quotes nothing of it."""


class ErrorBodyError(Exception):
    """An error came in the body of a response with status 200."""

    def __init__(self, body: object) -> None:
        super().__init__("an error with status 200")
        self.body = body


@dataclass(frozen=True, kw_only=True, slots=True)
class BadEnd:
    """What one of a provider's words for the end means, where it is not the end of a whole answer."""

    category: FailureCategory
    message: str
    retryable: bool | None = None
    remedy: str | None = None


CUT_AT_THE_LIMIT = BadEnd(
    category=FailureCategory.TRUNCATED,
    message="the answer was cut off at the limit of output tokens",
    retryable=False,
    remedy="raise parameters.max_tokens (reasoning counts towards it), or ask for less",
)
FILTERED = BadEnd(category=FailureCategory.CONTENT_FILTER, message="the provider's content filter cut the answer off")
REFUSED = BadEnd(category=FailureCategory.REFUSAL, message="the model refused to answer")
CONTEXT_FULL = BadEnd(
    category=FailureCategory.CONTEXT_LENGTH,
    message="the answer was cut off: the model's context is full",
    remedy="shorten the messages, or choose a model with a larger context",
)


class AnswerDraft:
    """One answer, in pieces or at once. Readers of each SDK's objects fill it in."""

    def __init__(self, *, asked_model: str, streamed: bool, request_id_header: str | None = None) -> None:
        self.model = asked_model
        self.streamed = streamed
        self.usage: Usage | None = None
        self.response_id: str | None = None
        self.end: str | None = None
        """The provider's word for why the answer ended, once it came."""
        self.begun = False
        """The provider said 200: from here on the call may be on the bill."""
        self.limits: tuple[RateLimit, ...] = ()
        self._request_id_header = request_id_header
        self._request_id: str | None = None
        self._texts: list[str] = []

    @property
    def text_begun(self) -> bool:
        return bool(self._texts)

    @property
    def request_id(self) -> str | None:
        """The provider's name for this call: from the header, else the answer's own id."""
        found = self._request_id or self.response_id
        return found[:_MAX_REQUEST_ID_CHARACTERS] if found else None

    def begin(self, headers: Mapping[str, str], *, now: datetime) -> None:
        """The headers of a response with status 200 are there. Raises `MalformedAnswerError`."""
        self.begun = True
        self._request_id = headers.get(self._request_id_header) if self._request_id_header else None
        self.limits = rate_limits(headers, now)
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if self.streamed and content_type not in {"", "text/event-stream"}:
            raise MalformedAnswerError(f"a stream was asked for, and {content_type[:_MAX_END_CHARACTERS]} came")

    def add(self, text: str) -> str:
        """The next piece of the text. Returns it. Raises `MalformedAnswerError` for what no codec could write."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise MalformedAnswerError("the text holds half a character") from error
        if text:
            self._texts.append(text)
        return text

    def outcome(self, bad_ends: Mapping[str, BadEnd], *, good_ends: frozenset[str]) -> Answered | Failed:
        """How the call ended, now that nothing more will come, by the provider's tables of ends."""
        if self.end is None:
            return self._failed(
                FailureCategory.TRUNCATED, "the answer ended before its end: the provider never said that it is whole"
            )
        bad = bad_ends.get(self.end)
        if bad is not None:
            return self._failed(bad.category, bad.message, retryable=bad.retryable, remedy=bad.remedy)
        if self.end not in good_ends or not self._texts:
            what = f"no answer in text; it ended with {self.end[:_MAX_END_CHARACTERS]!r}"
            return self._failed(FailureCategory.MALFORMED, what)
        return Answered(
            text="".join(self._texts),
            finish_reason=FINISHED,
            model=self.model,
            usage=self.usage,
            provider_request_id=self.request_id,
            limits=self.limits,
        )

    def _failed(
        self, category: FailureCategory, message: str, *, retryable: bool | None = None, remedy: str | None = None
    ) -> Failed:
        code = self.end[:_MAX_END_CHARACTERS] if self.end else None
        return Failed(
            problem=problem(category, message, retryable=retryable, remedy=remedy, provider_code=code),
            possibly_billed=True,
            usage=self.usage,
            provider_request_id=self.request_id,
            limits=self.limits,
        )


def usage_of(*, input_tokens: object, output_tokens: object, cached_input_tokens: object) -> Usage | None:
    """Tokens as reported, or None for a report that makes no sense: the answer counts, not its accounts."""
    try:
        return Usage.model_validate(
            {
                "input_tokens": input_tokens or 0,
                "output_tokens": output_tokens or 0,
                "cached_input_tokens": cached_input_tokens or 0,
            },
            strict=True,
        )
    except ValueError:
        return None
