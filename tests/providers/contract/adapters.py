"""How the contract reaches each type of provider: one `Adapter` a type, and a column each in the matrix."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.vocabulary import FailureCategory as F
from tests.providers.contract.cases import BY_NAME, CASES, Case, Expected
from tests.support.fault_wire import Wire
from tests.support.fault_wire_anthropic import AnthropicWire
from tests.support.fault_wire_gemini import GeminiWire
from tests.support.fault_wire_openai import OpenAIWire

KEY = "sk-contract-0123456789-very-secret"
KEY_VARIABLE = "CONTRACT_KEY"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A cell that is not as the table has it, and why."""

    expected: Expected
    why: str


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """One type of provider. `entry`: what its entry in providers.toml has beside type, models, address and key.

    `wire`: what the fault server speaks to it; None for a provider that calls nobody. `base_path`: what its base_url
    has after host and port, where that is not the wire's. `metadata`: what a call carries to bring a case about, where
    there is no wire. `cannot`: cases that cannot be brought about, and why.
    """

    type: str
    wire: Wire | None
    base_path: str | None = None
    entry: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    cannot: Mapping[str, str] = field(default_factory=dict)
    differs: Mapping[str, Difference] = field(default_factory=dict)

    def expected(self, case: Case, *, streamed: bool) -> Expected | None:
        """How a call ends here; None where this cannot be tried."""
        if case.name in self.cannot or case.expected(streamed=streamed) is None:
            return None
        difference = self.differs.get(case.name)
        return difference.expected if difference else case.expected(streamed=streamed)

    def full_entry(self, root: str, **more: Any) -> dict[str, Any]:
        """Its entry in providers.toml, with the fault server at `root`."""
        entry: dict[str, Any] = {"type": self.type, "models": ["m"]}
        if self.wire is not None:
            path = self.wire.path if self.base_path is None else self.base_path
            entry |= {"base_url": root + path, "api_key_env": KEY_VARIABLE}
        return entry | dict(self.entry) | more


_NO_WIRE = "it calls nobody: there is no connection, status or body that could go wrong"

_SIMULATED = {
    "good": {},
    "silence": {"simulated.hang": "true"},
    "no-first-token": {"simulated.hang": "true"},
    "stall": {"simulated.stall": "true"},
    "clean-end-without-end": {"simulated.truncate": "true"},
    "prompt-filtered": {"simulated.fail": F.CONTENT_FILTER},
    "context-length": {"simulated.fail": F.CONTEXT_LENGTH},
    "quota": {"simulated.fail": F.QUOTA_EXHAUSTED},
    "unknown-model": {"simulated.fail": F.NOT_FOUND},
    "rate-limited": {"simulated.fail": F.RATE_LIMITED},
    "rate-limited-seconds": {"simulated.fail": F.RATE_LIMITED, "simulated.retry_after_seconds": "7"},
    "structured-misfit": {"simulated.answer": "no JSON"},
}

ADAPTERS: tuple[Adapter, ...] = (
    Adapter(type="openai", wire=OpenAIWire()),
    Adapter(type="azure_openai", wire=OpenAIWire(), base_path=""),
    Adapter(type="openrouter", wire=OpenAIWire(), base_path="/api/v1"),
    Adapter(type="vllm", wire=OpenAIWire()),
    Adapter(type="openai_compatible", wire=OpenAIWire()),
    Adapter(
        type="anthropic",
        wire=AnthropicWire(),
        cannot={"filtered": "the API has no filter that ends an answer: that is a refusal, or an error"},
    ),
    Adapter(
        type="google",
        wire=GeminiWire(),
        differs={
            "refused": Difference(
                expected=Expected(F.CONTENT_FILTER, possibly_billed=True),
                why="Gemini knows no refusal: its filter blocks the prompt",
            ),
            "prompt-filtered": Difference(
                expected=Expected(F.CONTENT_FILTER, possibly_billed=True),
                why="a blocked prompt comes with status 200, and may be billed",
            ),
        },
    ),
    Adapter(
        type="simulated",
        wire=None,
        entry={"options": {"latency_ms": 0, "first_token_ms": 0, "tokens_per_second": 100_000}},
        metadata=_SIMULATED,
        cannot={case.name: _NO_WIRE for case in CASES if case.name not in _SIMULATED},
    ),
)
BY_TYPE = {adapter.type: adapter for adapter in ADAPTERS}

assert all(name in BY_NAME for adapter in ADAPTERS for name in (*adapter.cannot, *adapter.differs, *adapter.metadata))
