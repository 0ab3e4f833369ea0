"""Compares two texts through the Python client, and prints the verdict."""

import asyncio
from uuid import uuid4

from schemas.vocabulary import Kind
from sluice import Client, LLMRequest, Settings


async def main() -> None:
    """Submits the comparison, and waits for its end."""
    request = LLMRequest(
        request_id=f"essays-{uuid4()}",
        kind=Kind.COMPARISON,
        prompt="Which text is easier to read?",
        essay_a="The gate is shut. The water waits. A hand turns the wheel, and the boats go up.",
        essay_b="Notwithstanding the aforementioned impediments, navigability necessitates impoundment.",
    )
    async with Client(Settings()) as client:
        result = await client.call(request, timeout_seconds=60)
    if result.answer is None or result.answer.comparison is None:
        raise SystemExit(f"{result.status}: {result.problem}")
    verdict = result.answer.comparison
    print(f"{result.status}: {verdict.winner}, confidence {verdict.confidence:.1f} of 5")
    print(verdict.justification)
    print(f"{result.timings.total_ms:.0f} ms, of which {result.timings.overhead_ms:.0f} ms were the pipeline's own")


if __name__ == "__main__":
    asyncio.run(main())
