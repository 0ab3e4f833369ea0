"""How the contract reaches each type of provider: one `Adapter` a type, and a column each in the matrix."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from schemas.request import Message, Parameters
from schemas.vocabulary import FailureCategory as F
from schemas.vocabulary import Role
from tests.providers.contract.cases import CASES, Case, Expected
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
    """One type of provider.

    `wire`: what the fault server speaks to it; None for a provider that calls nobody. Then `calls` says what a call has
    that brings a case about. `entry`: what its entry in providers.toml has beside type, models, address and key.
    `base_path`: what its base_url has after host and port, where that is not the wire's. `cannot`: cases that cannot be
    brought about, and why. `needs`: modules without which nothing can be tried.
    """

    type: str
    wire: Wire | None
    base_path: str | None = None
    entry: Callable[[], Mapping[str, Any]] = dict
    calls: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cannot: Mapping[str, str] = field(default_factory=dict)
    differs: Mapping[str, Difference] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

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
        return entry | dict(self.entry()) | more


def _all_but(tried: Mapping[str, Any], why: str) -> dict[str, str]:
    return {case.name: why for case in CASES if case.name not in tried}


def _simulated(**overrides: str) -> dict[str, Any]:
    return {"metadata": {f"simulated.{name}": value for name, value in overrides.items()}}


_SIMULATED = {
    "good": {},
    "silence": _simulated(hang="true"),
    "no-first-token": _simulated(hang="true"),
    "stall": _simulated(stall="true"),
    "clean-end-without-end": _simulated(truncate="true"),
    "structured-misfit": _simulated(answer="no JSON"),
    "prompt-filtered": _simulated(fail=F.CONTENT_FILTER),
    "context-length": _simulated(fail=F.CONTEXT_LENGTH),
    "quota": _simulated(fail=F.QUOTA_EXHAUSTED),
    "unknown-model": _simulated(fail=F.NOT_FOUND),
    "rate-limited": _simulated(fail=F.RATE_LIMITED),
    "rate-limited-seconds": _simulated(fail=F.RATE_LIMITED, retry_after_seconds="7"),
}

_LLAMA_CPP: dict[str, dict[str, Any]] = {
    "good": {"response_schema": {"enum": ["yes"]}},
    "structured": {},
    "cut-at-the-limit": {"parameters": Parameters(max_tokens=5)},
    "context-length": {"messages": (Message(role=Role.USER, content="word " * 5_000),)},
}


@cache
def _tiny_model_folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="sluice-contract-")


@cache
def _tiny_model() -> Path:
    from tests.support.tiny_gguf import write_tiny_gguf  # noqa: PLC0415 - only where it can be used

    return write_tiny_gguf(Path(_tiny_model_folder().name) / "tiny.gguf")


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
        type="llama_cpp",
        wire=None,
        entry=lambda: {"options": {"model_path": str(_tiny_model()), "context_tokens": 4096, "threads": 1}},
        calls=_LLAMA_CPP,
        cannot=_all_but(_LLAMA_CPP, "a model in this process: there is no connection, status or body to go wrong"),
        differs={
            "cut-at-the-limit": Difference(expected=Expected(F.TRUNCATED), why="nobody sends a bill"),
        },
        needs=("llama_cpp", "gguf"),
    ),
    Adapter(
        type="simulated",
        wire=None,
        entry=lambda: {"options": {"latency_ms": 0, "first_token_ms": 0, "tokens_per_second": 100_000}},
        calls=_SIMULATED,
        cannot=_all_but(_SIMULATED, "it calls nobody: there is no connection, status or body to go wrong"),
    ),
)
BY_TYPE = {adapter.type: adapter for adapter in ADAPTERS}
EXEMPT = {"replay": "it repeats what was recorded of another provider, whatever that was"}
"""Types without a column, and why."""
