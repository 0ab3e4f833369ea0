"""Steps wait while what they need is away, and give what it answers in the end."""

import pytest

from connectors.state.base import StateUnavailableError
from schemas.codec import SchemaUnavailableError
from streams.patience import patiently


@pytest.mark.parametrize("error", [StateUnavailableError("claim", "away"), SchemaUnavailableError("away")])
async def test_a_step_is_tried_again_until_it_answers(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.patience.wait_random_exponential", lambda *_, **__: lambda _state: 0)
    tries = 0

    async def step() -> str:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise error
        return "answer"

    assert await patiently("test", lambda: step()) == "answer"  # noqa: PLW0108 - stages pass lambdas
    assert tries == 4


async def test_any_other_error_is_not_waited_for() -> None:
    async def step() -> None:
        raise LookupError("a bug")

    with pytest.raises(LookupError, match="a bug"):
        await patiently("test", step)
