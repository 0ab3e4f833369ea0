"""`sluice providers list` and `sluice providers test`: what they show, and how they end."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from sluice.commands import providers
from tests.support.chat_server import ANSWER, ChatServer, chat_server

KEY = "sk-very-secret"
SIMULATED = """
[providers.sim]
type = "simulated"
models = ["reading-ease-1"]
local = true
options = { latency_ms = 0, first_token_ms = 0, tokens_per_second = 100000 }
"""
REMOTE = """
[providers.remote]
type = "openai_compatible"
models = ["served", "other-*"]
base_url = "{url}/v1"
api_key_env = "REMOTE_KEY"
"""

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
async def server() -> AsyncIterator[ChatServer]:
    async with chat_server() as running:
        yield running


@pytest.fixture
def run(tmp_path: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command with a providers file of one local provider and one at the server."""
    (tmp_path / "providers.toml").write_text(SIMULATED + REMOTE.format(url=server.url))
    # It would replace the handlers of the whole test run.
    monkeypatch.setattr(providers, "configure_command_logs", lambda *_, **__: None)
    # Nor may a stack that somebody runs here be looked for.
    environ = {
        "SLUICE_PROVIDERS_FILE": str(tmp_path / "providers.toml"),
        "SLUICE_STATE_DIR": str(tmp_path),
        "REMOTE_KEY": KEY,
    }

    async def run(*arguments: str, **more: str | None) -> Result:
        # In a thread of its own: the server answers in this one's loop.
        return await asyncio.to_thread(CliRunner().invoke, providers.app, arguments, env={**environ, **more})

    return run


def rows(result: Result) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(result.stdout)["providers"]}


async def test_the_list(run: Run, server: ChatServer) -> None:
    """What is configured, without a call to anybody: types, models, keys by name, and how JSON is asked for."""
    result = await run("list", "--json")
    assert result.exit_code == 0
    sim, remote = rows(result)["sim"], rows(result)["remote"]
    assert (sim["type"], sim["local"], sim["key"], sim["models"]) == ("simulated", True, None, ["reading-ease-1"])
    assert remote["key"] == {"variable": "REMOTE_KEY", "set": True}
    assert remote["capabilities"]["structured_output"] == {"served": "json_schema", "other-*": "json_schema"}
    assert "check" not in remote
    assert server.asked == []


async def test_a_key_that_is_missing_is_shown(run: Run) -> None:
    """By the name of its variable, in both forms of the list."""
    assert "REMOTE_KEY is not set" in (await run("list", REMOTE_KEY=None)).stdout
    assert rows(await run("list", "--json", REMOTE_KEY=None))["remote"]["key"]["set"] is False


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["list", "--check"], ["test", "remote", "--json"]])
async def test_no_key_is_ever_printed(run: Run, server: ChatServer, arguments: list[str]) -> None:
    """Not even where the server quotes it."""
    server.status, server.reply = 401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}
    assert KEY not in (await run(*arguments)).output


async def test_a_check_asks_each_of_them(run: Run, server: ChatServer) -> None:
    """One request that costs nothing, and a comparison with the models that the file names."""
    server.reply = {"data": [{"id": "served"}, {"id": "more"}]}
    result = await run("list", "--check", "--json")
    assert result.exit_code == 0
    assert [row["check"]["reachable"] for row in rows(result).values()] == [True, True]
    assert [(asked.method, asked.path) for asked in server.asked] == [("GET", "/v1/models")]
    assert rows(result)["remote"]["check"]["models_not_offered"] == []


async def test_a_model_that_is_not_offered_is_told(run: Run, server: ChatServer) -> None:
    """The provider can be reached, and a misspelt model is seen before its first request."""
    server.reply = {"data": [{"id": "more"}]}
    result = await run("list", "--check")
    assert result.exit_code == 0
    assert "it does not list served" in result.stdout


async def test_a_check_that_fails(run: Run, server: ChatServer) -> None:
    """Says how, and the command fails."""
    server.status, server.reply = 401, {"error": {"message": "no"}}
    result = await run("list", "--check", "--json")
    assert result.exit_code == 1
    assert rows(result)["remote"]["check"]["problem"]["category"] == "authentication"
    assert rows(result)["sim"]["check"]["reachable"] is True


async def test_a_provider_that_cannot_be_built_fails_the_check(run: Run) -> None:
    """The others are checked all the same."""
    result = await run("list", "--check", "--json", REMOTE_KEY=None)
    assert result.exit_code == 1
    assert "REMOTE_KEY" in rows(result)["remote"]["check"]["problem"]["message"]
    assert rows(result)["sim"]["check"]["reachable"] is True


async def test_a_call_that_is_answered(run: Run, server: ChatServer) -> None:
    """One small stream: the answer, who gave it, tokens and times; an unknown price is not zero."""
    result = await run("test", "remote", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (told["ok"], told["answer"], told["answered_by"]) == (True, ANSWER, "served")
    assert (told["usage"]["input_tokens"], told["cost_usd"]) == (11, None)
    assert 0 < told["first_token_ms"] <= told["milliseconds"]
    (asked,) = server.asked
    assert (asked.body["model"], asked.body["stream"]) == ("served", True)
    assert asked.headers["authorization"] == f"Bearer {KEY}"


async def test_for_people(run: Run) -> None:
    """The answer stands alone in its line, and what it cost in the next."""
    answer, facts = (await run("test", "remote", "--model", "other-1", "--no-stream")).stdout.splitlines()
    assert answer == ANSWER
    assert facts.startswith("(other-1, answered by served; ")
    assert "11 tokens in, 3 out; price not known" in facts


async def test_prices_of_one_s_own(run: Run, tmp_path: Path) -> None:
    """SLUICE_PRICES_FILE says what a model costs that Sluice knows no price of; one that cannot be read is named."""
    path = tmp_path / "prices.toml"
    path.write_text('[served]\ninput_usd = 1000\noutput_usd = 2000\nas_of = 2026-11-21\nsource = "our contract"\n')
    told = json.loads((await run("test", "remote", "--json", SLUICE_PRICES_FILE=str(path))).stdout)
    assert told["cost_usd"] == pytest.approx((11 * 1000 + 3 * 2000) / 1e6)
    path.write_text("[served]\ninput_usd = 1000")
    refused = await run("test", "remote", SLUICE_PRICES_FILE=str(path))
    assert refused.exit_code == 2
    assert "prices.toml" in refused.stderr


async def test_a_call_that_fails(run: Run, server: ChatServer) -> None:
    """Its category and what to do stand on standard error, and the exit code is 1."""
    server.status, server.reply = 429, {"error": {"message": "no money", "code": "insufficient_quota"}}
    result = await run("test", "remote")
    assert result.exit_code == 1
    assert "quota_exhausted: HTTP 429: no money (check the account's plan and billing)" in result.stderr
    told = json.loads((await run("test", "remote", "--json")).stdout)
    assert (told["ok"], told["problem"]["http_status"]) == (False, 429)


async def test_a_comparison(run: Run) -> None:
    """Two tiny essays go by the schema, and the verdict is read as a lane reads it."""
    told = json.loads((await run("test", "sim", "--comparison", "--json")).stdout)
    assert told["ok"]
    assert json.loads(told["answer"])["winner"] in {"Essay A", "Essay B"}


async def test_a_comparison_that_does_not_fit(run: Run, server: ChatServer) -> None:
    """An answer that is no verdict fails the test, though the call went well."""
    result = await run("test", "remote", "--comparison", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (told["ok"], told["answer"], told["problem"]["category"]) == (False, ANSWER, "malformed")
    assert server.asked[0].body["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["test", "nobody"], "there is no provider named nobody; there is: sim, remote"),
        (["test", "remote", "--model", "gpt"], "its models: served, other-*"),
    ],
)
async def test_a_wrong_name_is_answered_with_the_right_ones(run: Run, arguments: list[str], said: str) -> None:
    """And with the exit code of a wrong call."""
    result = await run(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr


async def test_a_missing_key_is_a_wrong_call(run: Run) -> None:
    """There is nothing to try out."""
    result = await run("test", "remote", REMOTE_KEY=None)
    assert result.exit_code == 2
    assert "REMOTE_KEY" in result.stderr
