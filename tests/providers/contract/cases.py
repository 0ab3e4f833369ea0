"""The contract of every provider: what each case ends in. One table; the suite holds providers to it, docs show it."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from schemas.vocabulary import FailureCategory as F


@dataclass(frozen=True)
class Expected:
    """How a call ends. No category: with an answer."""

    category: F | None = None
    retryable: bool = False
    possibly_billed: bool = False


ANSWERED = Expected()


class Patience(Enum):
    """Whose limits on time a case needs to be short."""

    NOBODY = "none"
    PROVIDER = "the provider's own"
    CALLER = "the caller's (streams.calling)"


class Where(Enum):
    """What stands at the provider's address."""

    SERVER = "the fault server"
    CLOSED_PORT = "nothing"
    FULL_QUEUE = "a server that takes no more connections"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One behaviour of `fault_cases.CASES`, and how a call that meets it ends. `whole` is None where only a stream can.

    `structured`: the call asks for a comparison.
    """

    name: str
    what: str
    whole: Expected | None
    streamed: Expected
    impatient: Patience = Patience.NOBODY
    structured: bool = False
    where: Where = Where.SERVER

    def expected(self, *, streamed: bool) -> Expected | None:
        return self.streamed if streamed else self.whole


def _case(name: str, what: str, ends: Expected, **more: Any) -> Case:
    """A case that ends in the same way, whole and streamed."""
    return Case(name=name, what=what, whole=ends, streamed=ends, **more)


def _in_a_stream(name: str, what: str, ends: Expected, **more: Any) -> Case:
    """A case that only a stream can meet."""
    return Case(name=name, what=what, whole=None, streamed=ends, **more)


def _passing(category: F, *, billed: bool) -> Expected:
    return Expected(category, retryable=True, possibly_billed=billed)


def _lasting(category: F, *, billed: bool = False) -> Expected:
    return Expected(category, retryable=False, possibly_billed=billed)


_BROKEN = _passing(F.CONNECTION, billed=True)
_MALFORMED = _passing(F.MALFORMED, billed=True)
_CUT_OFF = _passing(F.TRUNCATED, billed=True)
_NOBODY = _passing(F.CONNECTION, billed=False)
_NOT_CONNECTED = _passing(F.TIMEOUT_CONNECT, billed=False)
_LATE = _passing(F.TIMEOUT_TOTAL, billed=True)
_LATE_FIRST = _passing(F.TIMEOUT_FIRST_TOKEN, billed=True)
_STALLED = _passing(F.TIMEOUT_STALL, billed=True)
_SERVER = _passing(F.SERVER_ERROR, billed=True)
_OVERLOADED = _passing(F.OVERLOADED, billed=False)
_LIMITED = _passing(F.RATE_LIMITED, billed=False)
_INVALID = _lasting(F.INVALID_REQUEST)

GROUPS: dict[str, tuple[Case, ...]] = {
    "Answers": (
        _case("good", "a whole answer", ANSWERED),
        _in_a_stream("good-then-reset", "the end of the answer, then a reset", ANSWERED),
        _case("structured", "a comparison that fits its schema", ANSWERED, structured=True),
        _case("structured-misfit", "a comparison that does not fit its schema", _MALFORMED, structured=True),
    ),
    "The connection": (
        _case("no-server", "nobody at the address", _NOBODY, where=Where.CLOSED_PORT),
        _case("no-connection", "a connection that never comes about", _NOT_CONNECTED, where=Where.FULL_QUEUE),
        _case("reset-before-headers", "a reset before the headers", _BROKEN),
        _case("goodbye-before-headers", "the connection closed before the headers", _BROKEN),
        _case("goodbye-mid-answer", "the connection closed amid the answer", _BROKEN),
        _in_a_stream("reset-mid-stream", "a reset amid the stream", _BROKEN),
    ),
    "Time": (
        Case(
            name="silence",
            what="no answer at all",
            whole=_LATE,
            streamed=_LATE_FIRST,
            impatient=Patience.PROVIDER,
        ),
        _in_a_stream("no-first-token", "headers, then silence", _LATE_FIRST, impatient=Patience.PROVIDER),
        _in_a_stream(
            "keep-alive-without-token", "signs of life, and no first token", _LATE_FIRST, impatient=Patience.CALLER
        ),
        _in_a_stream("stall", "some text, then silence", _STALLED, impatient=Patience.PROVIDER),
        _in_a_stream(
            "keep-alive-after-tokens", "some text, then signs of life alone", _STALLED, impatient=Patience.CALLER
        ),
    ),
    "What comes": (
        _in_a_stream("clean-end-without-end", "a clean end without the end marker", _CUT_OFF),
        _in_a_stream("cut-inside-event", "a clean end inside an event", _CUT_OFF),
        _in_a_stream("bad-chunk", "a chunk that is no JSON", _MALFORMED),
        _in_a_stream("chunk-of-another-kind", "a chunk that is JSON of another kind", _MALFORMED),
        _case("half-a-character", "text that holds half a character", _MALFORMED),
        _case("html", "a page of HTML with status 200", _MALFORMED),
        _in_a_stream("not-a-stream", "a JSON body where a stream was due", _MALFORMED),
        _case("broken-json", "a body that breaks off", _MALFORMED),
        _case("empty-object", "`{}`", _MALFORMED),
        _case("empty-answer", "an answer without a character", _MALFORMED),
        _case("no-content", "an answer whose text is null", _MALFORMED),
        _case("unknown-end", "an end of a kind that is not known", _MALFORMED),
        _in_a_stream("error-event", "an error event amid the stream", _SERVER),
        _in_a_stream("rate-limit-event", "a rate limit amid the stream", _passing(F.RATE_LIMITED, billed=True)),
        _case("error-with-200", "an error with status 200", _passing(F.OVERLOADED, billed=True)),
    ),
    "What the model and its guards say": (
        _case("cut-at-the-limit", "the limit of output tokens", _lasting(F.TRUNCATED, billed=True)),
        _case("refused", "a refusal by the model", _lasting(F.REFUSAL, billed=True)),
        _case("filtered", "the content filter, amid the answer", _lasting(F.CONTENT_FILTER, billed=True)),
        _case("prompt-filtered", "the content filter, of the prompt", _lasting(F.CONTENT_FILTER)),
        _case("context-length", "a prompt that is too long", _lasting(F.CONTEXT_LENGTH)),
        _case("quota", "no money or quota left", _lasting(F.QUOTA_EXHAUSTED)),
        _case("unknown-model", "a model that does not exist", _lasting(F.NOT_FOUND)),
    ),
    "Statuses": (
        _case("rate-limited", "429 without Retry-After", _LIMITED),
        _case("rate-limited-seconds", "429 with Retry-After in seconds", _LIMITED),
        _case("rate-limited-date", "429 with Retry-After as a date", _LIMITED),
        _case("redirect", "307", _lasting(F.NOT_FOUND)),
        _case("status-400", "400", _INVALID),
        _case("status-401", "401", _lasting(F.AUTHENTICATION)),
        _case("status-402", "402", _lasting(F.QUOTA_EXHAUSTED)),
        _case("status-403", "403", _lasting(F.PERMISSION)),
        _case("status-404", "404", _lasting(F.NOT_FOUND)),
        _case("status-408", "408", _LATE),
        _case("status-409", "409", _OVERLOADED),
        _case("status-413", "413", _INVALID),
        _case("status-418", "418", _INVALID),
        _case("status-422", "422", _INVALID),
        _case("status-500", "500", _SERVER),
        _case("status-502", "502", _SERVER),
        _case("gateway-page", "502 with a page of HTML", _SERVER),
        _case("status-503", "503", _OVERLOADED),
        _case("status-504", "504", _SERVER),
        _case("status-529", "529", _OVERLOADED),
    ),
}
CASES = tuple(case for group in GROUPS.values() for case in group)
BY_NAME = {case.name: case for case in CASES}
