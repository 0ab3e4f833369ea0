"""The demo's input: essays from `examples/essays.jsonl`, and a comparison request for each pair."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from schemas.request import LLMRequest
from schemas.vocabulary import Kind

PACKAGED_FILE = Path(__file__).with_name("essays.jsonl")
"""Where a wheel puts the file that a checkout has in `examples/`."""
CHECKOUT_FILE = Path(__file__).parents[2] / "examples" / "essays.jsonl"
PROMPT = "Which essay is easier to read for a citizen of today? Judge the writing, not the opinion."


@dataclass(frozen=True, kw_only=True, slots=True)
class Essay:
    """One essay of the Federalist."""

    number: int
    author: str
    title: str
    text: str

    @property
    def label(self) -> str:
        return f"No. {self.number}"


def read_essays(path: Path | None = None) -> list[Essay]:
    """One essay a line. Raises FileNotFoundError, or ValueError with the line's number."""
    path = path or (PACKAGED_FILE if PACKAGED_FILE.is_file() else CHECKOUT_FILE)
    essays = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            essays.append(Essay(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}:{number}: not an essay: {error}") from error
    return essays


def pair_requests(
    essays: Sequence[Essay], *, run: str, provider: str, model: str | None
) -> list[tuple[Essay, Essay, LLMRequest]]:
    """Every pair once; the first essay of a pair is Essay A."""
    return [
        (
            first,
            second,
            LLMRequest(
                request_id=f"{run}.{first.number:02}-{second.number:02}",
                correlation_id=run,
                user_id="demo",
                kind=Kind.COMPARISON,
                prompt=PROMPT,
                essay_a=first.text,
                essay_b=second.text,
                provider=provider,
                model=model,
                stream=True,
                metadata={"essay_a": first.label, "essay_b": second.label},
            ),
        )
        for first, second in combinations(essays, 2)
    ]
