"""What a run of the demo is to do, and the `providers.toml` that goes with it."""

import importlib.util
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sluice.demo.essays import Essay

DEFAULT_OPENAI_MODEL = "gpt-5-mini"
OPENAI_BASE_URL = "https://api.openai.com/v1"
PIECES_OF_AN_ANSWER = 60
"""So many pieces a simulated comparison has: their pace makes up the latency that was asked for."""


class DemoProvider(StrEnum):
    """Who judges."""

    SIMULATED = "simulated"
    OPENAI = "openai"


class PlanError(Exception):
    """What was asked for cannot work; the message says what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to run. `run` names it: its topics, its folder and its requests."""

    run: str
    essays: list[Essay]
    provider: DemoProvider
    model: str | None
    latency_ms: float
    concurrency: int
    rate: float
    timeout_seconds: float
    keep: bool
    open_page: bool

    @property
    def topic_prefix(self) -> str:
        """Of this run alone, so that runs at the same time or one after the other do not meet."""
        return f"{self.run}."

    def settings_of_provider(self, environ: Mapping[str, str] = os.environ) -> dict[str, object]:
        """Its table in `providers.toml`, as dotted names and values. Raises `PlanError`."""
        if self.provider is DemoProvider.OPENAI:
            return self._openai(environ)
        if self.model is not None:
            raise PlanError("--model goes with --provider openai: the simulated provider has one model")
        return {
            "type": "simulated",
            "models": ["reading-ease-1"],
            "local": True,
            "concurrency": self.concurrency,
            "options.first_token_ms": self.latency_ms / 3,
            "options.tokens_per_second": PIECES_OF_AN_ANSWER / max(self.latency_ms / 1000, 0.001),
        }

    def _openai(self, environ: Mapping[str, str]) -> dict[str, object]:
        base_url, has_key = environ.get("OPENAI_BASE_URL"), bool(environ.get("OPENAI_API_KEY"))
        if not base_url and not has_key:
            raise PlanError("--provider openai needs OPENAI_API_KEY, or OPENAI_BASE_URL for a server of your own")
        if base_url and not base_url.startswith(("http://", "https://")):
            raise PlanError(f"OPENAI_BASE_URL={base_url} is no address: it begins with http:// or https://")
        if importlib.util.find_spec("openai") is None:
            raise PlanError("--provider openai needs its package: pip install 'sluice[openai]'")
        return {
            "type": "openai",
            "models": [self.model or DEFAULT_OPENAI_MODEL],
            "base_url": base_url or OPENAI_BASE_URL,
            "concurrency": self.concurrency,
            **({"api_key_env": "OPENAI_API_KEY"} if has_key else {}),
        }


def write_catalogue(path: Path, provider: str, settings: Mapping[str, object]) -> None:
    """A `providers.toml` with one provider. Values are written as JSON, which TOML reads alike for these types."""
    tables: dict[str, list[str]] = {"": []}
    for name, value in settings.items():
        table, _, key = name.rpartition(".")
        tables.setdefault(table, []).append(f"{key} = {json.dumps(value)}")
    text = ""
    for table, entries in tables.items():
        text += f"[providers.{provider}{'.' + table if table else ''}]\n" + "\n".join(entries) + "\n\n"
    path.write_text(text, encoding="utf-8")
