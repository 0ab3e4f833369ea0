"""Which provider a request goes to. Hard constraints filter first; what remains is chosen by pin, model or default."""

from policy.catalogue import Catalogue, ProviderEntry
from policy.failures import problem
from schemas.attempt import Problem
from schemas.request import LLMRequest
from schemas.task import RoutingDecision
from schemas.vocabulary import FailureCategory, Sensitivity

LOCAL_ONLY = frozenset({Sensitivity.SENSITIVE, Sensitivity.CRITICAL})


def route(request: LLMRequest, catalogue: Catalogue) -> RoutingDecision | Problem:
    """The provider and model for a request, or why there is none."""
    if request.provider is not None:
        return _pinned(request, request.provider, catalogue)
    if request.model is not None:
        return _by_model(request, request.model, catalogue)
    return _by_default(request, catalogue)


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


def _by_model(request: LLMRequest, model: str, catalogue: Catalogue) -> RoutingDecision | Problem:
    serving = {name: entry for name, entry in catalogue.providers.items() if entry.serves(model)}
    if not serving:
        return problem(
            category=FailureCategory.NO_ROUTE,
            message=f"no provider serves the model {model}",
            field="model",
            remedy="add it to a provider in providers.toml, or name another model",
        )
    return _first_allowed(request, serving, model=model, reason=f"serves the model {model}")


def _by_default(request: LLMRequest, catalogue: Catalogue) -> RoutingDecision | Problem:
    default = catalogue.default_provider
    ordered = {default: catalogue.providers[default], **catalogue.providers}
    return _first_allowed(request, ordered, model=None, reason="default provider")


def _first_allowed(
    request: LLMRequest, candidates: dict[str, ProviderEntry], *, model: str | None, reason: str
) -> RoutingDecision | Problem:
    first_denial: Problem | None = None
    for name, entry in candidates.items():
        problem = denial(request, name, entry)
        if problem is None:
            passed_over = "" if first_denial is None else ", the first that the constraints permit"
            return RoutingDecision(provider=name, model=model or entry.model, reason=reason + passed_over)
        first_denial = first_denial or problem
    if first_denial is None:
        raise ValueError("no candidates")
    return first_denial
