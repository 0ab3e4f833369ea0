"""Which provider a request goes to. Hard constraints filter first; what remains is chosen by pin, model or default."""

from collections.abc import Container, Iterator, Set

from policy.catalogue import Catalogue, ProviderEntry
from policy.failures import problem
from schemas.attempt import Problem
from schemas.request import LLMRequest
from schemas.task import RoutingDecision
from schemas.vocabulary import FailureCategory, ProcessingMode, Sensitivity

UNAVAILABLE_RETRY_AFTER_SECONDS = 60.0
LOCAL_ONLY = frozenset({Sensitivity.SENSITIVE, Sensitivity.CRITICAL})


def route(
    request: LLMRequest, catalogue: Catalogue, *, unavailable: Set[str] = frozenset()
) -> RoutingDecision | Problem:
    """The provider and model for a request, or why there is none.

    `unavailable` are providers that are not called at present. A request that allows failover goes elsewhere if it
    can; another one waits for its provider, or is turned away where its processing_mode is immediate.
    """
    passed_over = unavailable if request.allow_failover else frozenset()
    if request.provider is not None:
        decision = _pinned(request, request.provider, catalogue)
    elif request.model is not None:
        decision = _by_model(request, request.model, catalogue, passed_over)
    else:
        decision = _by_default(request, catalogue, passed_over)
    if isinstance(decision, Problem) or decision.provider not in unavailable:
        return decision
    if request.processing_mode is ProcessingMode.IMMEDIATE:
        return problem(
            category=FailureCategory.PROVIDER_UNAVAILABLE,
            message=f"the provider {decision.provider} is not called at present: its breaker is open",
            remedy="send it again later, or with processing_mode queue_if_unavailable",
            retry_after_seconds=UNAVAILABLE_RETRY_AFTER_SECONDS,
        )
    return decision


def alternatives(request: LLMRequest, catalogue: Catalogue, *, besides: Container[str]) -> Iterator[RoutingDecision]:
    """Where else an unpinned request may go, in the catalogue's order, with the constraints as hard as ever."""
    for name, entry in catalogue.providers.items():
        serves = request.model is None or entry.serves(request.model)
        if name not in besides and serves and denial(request, name, entry) is None:
            yield RoutingDecision(provider=name, model=request.model or entry.model, reason="failover")


def denial(request: LLMRequest, provider: str, entry: ProviderEntry) -> Problem | None:
    """The hard constraint that keeps a request from a provider. Checked before every attempt, never traded."""
    constraints = request.constraints
    if constraints.allowed_providers and provider not in constraints.allowed_providers:
        return problem(
            category=FailureCategory.DENIED,
            message=f"the request does not allow the provider {provider}",
            field="constraints.allowed_providers",
            remedy=f"add {provider}, or leave the list empty",
        )
    if constraints.sensitivity in LOCAL_ONLY and not entry.local:
        return problem(
            category=FailureCategory.DENIED,
            message=f"{constraints.sensitivity} content may not leave for {provider}, which is not local",
            field="constraints.sensitivity",
            remedy="configure a local provider for it",
        )
    return None


def _pinned(request: LLMRequest, name: str, catalogue: Catalogue) -> RoutingDecision | Problem:
    entry = catalogue.providers.get(name)
    if entry is None:
        return problem(
            category=FailureCategory.NO_ROUTE,
            message=f"there is no provider named {name}",
            field="provider",
            remedy="one of: " + ", ".join(catalogue.providers),
        )
    if request.model is not None and not entry.serves(request.model):
        return problem(
            category=FailureCategory.NO_ROUTE,
            message=f"the provider {name} does not serve the model {request.model}",
            field="model",
            remedy="one of: " + ", ".join(entry.models),
        )
    return denial(request, name, entry) or RoutingDecision(
        provider=name, model=request.model or entry.model, reason="pinned by the request"
    )


def _by_model(
    request: LLMRequest, model: str, catalogue: Catalogue, passed_over: Set[str]
) -> RoutingDecision | Problem:
    serving = {name: entry for name, entry in catalogue.providers.items() if entry.serves(model)}
    if not serving:
        return problem(
            category=FailureCategory.NO_ROUTE,
            message=f"no provider serves the model {model}",
            field="model",
            remedy="add it to a provider in providers.toml, or name another model",
        )
    return _first_allowed(request, serving, passed_over, model=model, reason=f"serves the model {model}")


def _by_default(request: LLMRequest, catalogue: Catalogue, passed_over: Set[str]) -> RoutingDecision | Problem:
    default = catalogue.default_provider
    ordered = {default: catalogue.providers[default], **catalogue.providers}
    return _first_allowed(request, ordered, passed_over, model=None, reason="default provider")


def _first_allowed(
    request: LLMRequest,
    candidates: dict[str, ProviderEntry],
    passed_over: Set[str],
    *,
    model: str | None,
    reason: str,
) -> RoutingDecision | Problem:
    """The first candidate that the constraints permit; those that are not called at present come last."""
    first_denial: Problem | None = None
    for name, entry in sorted(candidates.items(), key=lambda candidate: candidate[0] in passed_over):
        problem = denial(request, name, entry)
        if problem is None:
            why = reason if first_denial is None else f"{reason}, the first that the constraints permit"
            return RoutingDecision(provider=name, model=model or entry.model, reason=why)
        first_denial = first_denial or problem
    if first_denial is None:
        raise ValueError("no candidates")
    return first_denial
