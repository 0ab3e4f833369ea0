"""What all workers of a provider's lane know of it: its breakers, and until when it asked to be left alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from policy.breaker import Breaker, settle_in
from policy.rules import BreakerRules
from policy.stored import StoredAs
from schemas.vocabulary import BreakerState

WHOLE = ""
"""The provider as a whole, where a model's name may stand."""
MAX_MODELS = 64
"""Models that have something of their own. What is said of any more counts for the provider as a whole."""
LONGEST_BLOCK_MS = 7 * 86_400_000
"""A Retry-After beyond it is taken for so much."""
KEPT_SECONDS = 8 * 86_400
FORGOTTEN_AFTER_MS = 3_600_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ProviderState:
    """By model, or `WHOLE`. `blocked`: until when (ms since 1970) no call may begin."""

    breakers: Mapping[str, Breaker] = field(default_factory=dict)
    blocked: Mapping[str, int] = field(default_factory=dict)

    def breaker(self, model: str) -> Breaker:
        return self.breakers.get(model, _FRESH)

    def blocked_until_ms(self, model: str) -> int:
        """The later of the model's time and that of the whole provider; 0 for none."""
        return max(self.blocked.get(WHOLE, 0), self.blocked.get(model, 0))

    def with_breaker(self, model: str, breaker: Breaker) -> "ProviderState":
        return replace(self, breakers={**self.breakers, model: breaker})

    def with_block(self, model: str, until_ms: int, *, now_ms: int) -> "ProviderState":
        """Nothing begins before `until_ms`. A time that is later already stays."""
        if len(self.blocked) >= MAX_MODELS and model not in self.blocked:
            model = WHOLE
        until_ms = min(until_ms, now_ms + LONGEST_BLOCK_MS)
        return replace(self, blocked={**self.blocked, model: max(until_ms, self.blocked.get(model, 0))})

    def tidied(self, *, now_ms: int, rules: BreakerRules) -> "ProviderState":
        """Without what is over."""
        settled = {name: settle_in(breaker, now_ms=now_ms, rules=rules) for name, breaker in self.breakers.items()}
        return ProviderState(
            breakers={name: breaker for name, breaker in settled.items() if not _is_over(breaker, now_ms)},
            blocked={name: until_ms for name, until_ms in self.blocked.items() if until_ms > now_ms},
        )


PROVIDER_STATE = StoredAs(ProviderState)
_FRESH = Breaker()


def _is_over(breaker: Breaker, now_ms: int) -> bool:
    """Closed, and nothing has been heard of it for a while."""
    is_quiet = breaker.state is BreakerState.CLOSED and not breaker.slots and not breaker.in_a_row
    return is_quiet and now_ms - breaker.since_ms >= FORGOTTEN_AFTER_MS
