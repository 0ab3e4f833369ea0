"""The closed sets of words of the contract. A new word goes at the end: Avro readers know them by name."""

from enum import StrEnum


class Kind(StrEnum):
    """What is asked for."""

    CHAT = "chat"
    COMPARISON = "comparison"


class Role(StrEnum):
    """Who says a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class Priority(StrEnum):
    """How a request is weighed against others of its lane."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class ProcessingMode(StrEnum):
    """What to do when no provider can take the request now."""

    QUEUE_IF_UNAVAILABLE = "queue_if_unavailable"
    IMMEDIATE = "immediate"


class Sensitivity(StrEnum):
    """How far the content may travel, from anywhere to nowhere."""

    PUBLIC = "public"
    INTERNAL = "internal"
    SENSITIVE = "sensitive"
    CRITICAL = "critical"


class DuplicatePolicy(StrEnum):
    """What to do after a call whose outcome was lost, and that may have been paid for."""

    RETRY = "retry"
    FAIL = "fail"


class State(StrEnum):
    """Where a request stands. `policy.lifecycle` says which may follow which."""

    QUEUED = "queued"
    PROCESSING = "processing"
    RETRY_SCHEDULED = "retry_scheduled"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    REJECTED = "rejected"

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL_STATES

    @property
    def event_type(self) -> str:
        """The name of the event that announces this state, as in `QUEUE_REQUEST_COMPLETED`."""
        return f"QUEUE_REQUEST_{self.name}"


TERMINAL_STATES = frozenset({State.COMPLETED, State.FAILED, State.EXPIRED, State.CANCELLED, State.REJECTED})


class AttemptOutcome(StrEnum):
    """How one call of a provider ended. `lost`: a crash left no trace of its outcome."""

    ANSWERED = "answered"
    FAILED = "failed"
    LOST = "lost"


class FailureCategory(StrEnum):
    """Why a request or one of its calls failed. `policy.failures` says which may pass with time."""

    UNKNOWN = "unknown"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    TIMEOUT_CONNECT = "timeout_connect"
    TIMEOUT_FIRST_TOKEN = "timeout_first_token"  # noqa: S105 - a token of text, not a secret
    TIMEOUT_STALL = "timeout_stall"
    TIMEOUT_TOTAL = "timeout_total"
    CONNECTION = "connection"
    SERVER_ERROR = "server_error"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    AUTHENTICATION = "authentication"
    PERMISSION = "permission"
    NOT_FOUND = "not_found"
    INVALID_REQUEST = "invalid_request"
    CONTEXT_LENGTH = "context_length"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    QUOTA_EXHAUSTED = "quota_exhausted"
    CANCELLED = "cancelled"
    # Not from a provider: ends that the pipeline itself gives to a request.
    UNDECODABLE = "undecodable"
    TOO_LARGE = "too_large"
    NO_ROUTE = "no_route"
    DENIED = "denied"
    QUEUE_FULL = "queue_full"
    DEADLINE = "deadline"
    OUTCOME_LOST = "outcome_lost"
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    BUDGET_EXHAUSTED = "budget_exhausted"


class CommandAction(StrEnum):
    """What can be asked for after a request was sent."""

    UNKNOWN = "unknown"
    CANCEL = "cancel"


class BreakerState(StrEnum):
    """Whether a provider is called: yes, no, or by one probe at a time."""

    UNKNOWN = "unknown"
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class DeadLetterAction(StrEnum):
    """What was done with a dead letter."""

    UNKNOWN = "unknown"
    REDRIVEN = "redriven"
    PURGED = "purged"
