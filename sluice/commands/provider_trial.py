"""One small call to a provider, made as a lane makes its calls, but past Kafka."""

from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

from connectors.providers.base import Answered, Call, ComparisonInput, Failed
from connectors.providers.registry import build_provider
from policy.catalogue import ProviderEntry
from policy.comparison import COMPARISON_SCHEMA, comparison_messages, parse_comparison
from policy.pricing import Prices, cost_usd
from schemas.attempt import Problem
from schemas.request import Message, Parameters
from schemas.vocabulary import Role
from streams.calling import CallReport, make_call

MAX_ANSWER_TOKENS = 1024
"""Room enough for models that think before they say one word."""

_QUESTION = "Answer with the single word: ready"
_ESSAYS = ComparisonInput(
    prompt="Describe the sea in two sentences.",
    essay_a="The sea is big. The sea is blue, and it is big.",
    essay_b="At dawn the sea lies like hammered pewter. By noon the wind has broken it into a thousand moving mirrors.",
)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How the call went. `problem` absent: there is an answer, and it is of the form that was asked for."""

    provider: str
    type: str
    model: str
    report: CallReport
    problem: Problem | None
    cost_usd: float | None

    @property
    def answered(self) -> Answered | None:
        return self.report.outcome if isinstance(self.report.outcome, Answered) else None

    def as_json(self) -> dict[str, Any]:
        """Everything that is known of it."""
        outcome, answered, first = self.report.outcome, self.answered, self.report.first_token_seconds
        return {
            "provider": self.provider,
            "type": self.type,
            "model": self.model,
            "ok": self.problem is None,
            "answer": None if answered is None else answered.text,
            "answered_by": None if answered is None else answered.model,
            "problem": None if self.problem is None else self.problem.model_dump(mode="json", exclude_none=True),
            "possibly_billed": isinstance(outcome, Failed) and outcome.possibly_billed,
            "milliseconds": round(self.report.duration_seconds * 1000, 1),
            "first_token_ms": None if first is None else round(first * 1000, 1),
            "usage": None if outcome.usage is None else outcome.usage.model_dump(mode="json"),
            "cost_usd": self.cost_usd,
            "provider_request_id": outcome.provider_request_id,
            "limits": [asdict(limit) for limit in outcome.limits],
        }


async def make_trial(
    name: str, entry: ProviderEntry, model: str, *, comparison: bool, stream: bool, prices: Prices
) -> Trial:
    """Makes the call. Raises `ProviderConfigurationError`."""

    async def ignore(_text: str) -> None:
        """The answer holds it all."""

    provider = build_provider(name, entry)
    try:
        report = await make_call(
            provider,
            _small_call(model, comparison=comparison, stream=stream),
            timeouts=entry.timeouts,
            seconds_to_deadline=entry.timeouts.total_seconds + 1,
            on_text=ignore,
        )
    finally:
        await provider.close()
    outcome = report.outcome
    answered_by = outcome.model if isinstance(outcome, Answered) else model
    return Trial(
        provider=name,
        type=entry.type,
        model=model,
        report=report,
        problem=_problem(report, comparison=comparison),
        cost_usd=None if outcome.usage is None else cost_usd(prices, answered_by, outcome.usage),
    )


def _small_call(model: str, *, comparison: bool, stream: bool) -> Call:
    parts: dict[str, Any] = {"messages": (Message(role=Role.USER, content=_QUESTION),)}
    if comparison:
        parts = {
            "messages": comparison_messages(**asdict(_ESSAYS)),
            "response_schema": COMPARISON_SCHEMA,
            "response_schema_name": "comparison",
            "comparison": _ESSAYS,
        }
    return Call(
        request_id=f"providers-test-{uuid4()}",
        attempt=1,
        model=model,
        parameters=Parameters(max_tokens=MAX_ANSWER_TOKENS),
        stream=stream,
        **parts,
    )


def _problem(report: CallReport, *, comparison: bool) -> Problem | None:
    if isinstance(report.outcome, Failed):
        return report.outcome.problem
    verdict = parse_comparison(report.outcome.text) if comparison else None
    return verdict if isinstance(verdict, Problem) else None
