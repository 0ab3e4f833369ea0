"""What a connector costs on top of its SDK: CPU of a call through it, over that of the bare SDK call, in one run.

    python -m bench.connector_cpu [--calls 300] [--rounds 7] [--json]

A bare call is what the SDK's own documentation shows, read to its end, over a plain client of the HTTP library that the
connector uses too. Both ask the same server, in a process of its own, for the same answer: 400 characters, or a
stream of 100 pieces. Rounds take turns, so that whatever else the machine does hits both; the ratio is that of the
medians. llama.cpp computes in process: there a call is 32 tokens of a tiny model.
"""

import argparse
import asyncio
import gc
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import httpx2
from rich.console import Console
from rich.table import Table

from bench.canned_server import WORDS, canned_servers
from connectors.providers.base import Answered, Call, Failed
from connectors.providers.http_client import new_http_client
from connectors.providers.registry import build_provider
from policy.catalogue import ProviderEntry
from schemas.request import Message, Parameters
from schemas.vocabulary import Role
from tests.providers.contract.adapters import ADAPTERS, KEY, KEY_VARIABLE, Adapter

AIM_PERCENT = 15.0
MODEL = "m"
PROMPT = WORDS * 10
MAX_TOKENS = 500
LOCAL_TOKENS = 32
TEMPERATURE = 0.7
LOCAL = "llama_cpp"

Ask = Callable[[bool], Awaitable[None]]
"""Makes one call, streamed or not, and reads its answer to the end."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """CPU of this process in microseconds per call: user and system, the median round."""

    provider: str
    streamed: bool
    bare_us: float
    connector_us: float

    @property
    def on_top_percent(self) -> float:
        return round((self.connector_us / self.bare_us - 1) * 100, 1)


async def measure(bare: Ask, ours: Ask, *, provider: str, streamed: bool, calls: int, rounds: int) -> Cost:
    """Rounds of both by turns. The first of each warms up and does not count."""
    spent: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in range(rounds + 1):
        for name, ask in (("bare", bare), ("ours", ours)):
            gc.collect()
            began = time.process_time()
            for _ in range(calls):
                await ask(streamed)
            spent[name].append((time.process_time() - began) / calls * 1e6)
    bare_us, connector_us = (round(statistics.median(spent[name][1:]), 1) for name in ("bare", "ours"))
    return Cost(provider=provider, streamed=streamed, bare_us=bare_us, connector_us=connector_us)


def through_connector(adapter: Adapter, root: str, client: httpx2.AsyncClient | None) -> tuple[Ask, Callable[..., Any]]:
    """Calls by the connector, as a lane makes them; and what closes it."""
    entry = ProviderEntry.model_validate(adapter.full_entry(root))
    provider = build_provider(adapter.type, entry, http_client=client, environ={KEY_VARIABLE: KEY})
    limit = LOCAL_TOKENS if adapter.type == LOCAL else MAX_TOKENS
    parameters = Parameters(temperature=TEMPERATURE, max_tokens=limit, seed=1 if adapter.type == LOCAL else None)
    messages = (Message(role=Role.USER, content=PROMPT),)

    async def ask(streamed: bool) -> None:
        call = Call(request_id="r", attempt=1, model=MODEL, messages=messages, parameters=parameters, stream=streamed)
        async with provider.open(call) as events:
            last = [event async for event in events][-1]
        # The tiny model never ends by itself: its answer is cut, and that is whole enough here.
        assert isinstance(last, Failed if adapter.type == LOCAL else Answered), last

    return ask, provider.close


def bare_chat(root: str, adapter: Adapter, client: httpx2.AsyncClient) -> Ask:
    """The OpenAI SDK, as its documentation has it."""
    from openai import AsyncOpenAI  # noqa: PLC0415 - one SDK at a time

    azure = adapter.type == "azure_openai"
    base_url = adapter.full_entry(root)["base_url"] + ("/openai/v1" if azure else "")
    sdk = AsyncOpenAI(api_key=KEY, base_url=base_url, http_client=client)
    parameters: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": PROMPT}],
        "temperature": TEMPERATURE,
        "max_completion_tokens" if azure else "max_tokens": MAX_TOKENS,
    }
    if adapter.type == "openrouter":
        # Else OpenRouter may shorten a prompt: the connector never lets it.
        parameters["extra_body"] = {"plugins": [{"id": "context-compression", "enabled": False}]}

    async def ask(streamed: bool) -> None:
        if streamed:
            stream = await sdk.chat.completions.create(
                **parameters, stream=True, stream_options={"include_usage": True}
            )
            assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
        else:
            assert (await sdk.chat.completions.create(**parameters)).choices[0].message.content

    return ask


def bare_messages(root: str, client: httpx2.AsyncClient) -> Ask:
    """The Anthropic SDK, as its documentation has it."""
    from anthropic import AsyncAnthropic  # noqa: PLC0415 - one SDK at a time

    sdk = AsyncAnthropic(api_key=KEY, base_url=root, http_client=client)
    parameters: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": PROMPT}],
        "extra_body": {"temperature": TEMPERATURE},
        "max_tokens": MAX_TOKENS,
    }

    async def ask(streamed: bool) -> None:
        if streamed:
            stream = await sdk.messages.create(**parameters, stream=True)
            assert "".join([event.delta.text async for event in stream if event.type == "content_block_delta"])
        else:
            assert (await sdk.messages.create(**parameters)).content

    return ask


def bare_gemini(root: str, client: httpx2.AsyncClient) -> Ask:
    """google-genai, as its documentation has it."""
    from google import genai  # noqa: PLC0415 - one SDK at a time
    from google.genai import types  # noqa: PLC0415

    options = types.HttpOptions(base_url=root, httpx_async_client=client)
    sdk = genai.Client(vertexai=False, api_key=KEY, http_options=options)
    config = types.GenerateContentConfig(temperature=TEMPERATURE, max_output_tokens=MAX_TOKENS)

    async def ask(streamed: bool) -> None:
        if streamed:
            stream = await sdk.aio.models.generate_content_stream(model=MODEL, contents=PROMPT, config=config)
            assert "".join([chunk.text or "" async for chunk in stream])
        else:
            assert (await sdk.aio.models.generate_content(model=MODEL, contents=PROMPT, config=config)).text

    return ask


def bare_llama(model_path: str) -> Ask:
    """llama-cpp-python, as its documentation has it."""
    import llama_cpp  # noqa: PLC0415 - a whole library

    model = llama_cpp.Llama(model_path, n_ctx=4096, n_threads=1, n_threads_batch=1, verbose=False)
    messages: Any = [{"role": "user", "content": PROMPT}]
    parameters: Any = {"temperature": TEMPERATURE, "max_tokens": LOCAL_TOKENS, "seed": 1}

    async def ask(streamed: bool) -> None:
        answer: Any = model.create_chat_completion(messages, stream=streamed, **parameters)
        assert list(answer)

    return ask


@asynccontextmanager
async def both(adapter: Adapter, root: str) -> AsyncIterator[tuple[Ask, Ask]]:
    """The bare call and the connector's, each with its own client, until the block ends."""
    async with AsyncExitStack() as stack:
        if adapter.type == LOCAL:
            ours, close = through_connector(adapter, root, None)
            bare = bare_llama(adapter.full_entry(root)["options"]["model_path"])
        else:
            plain = await stack.enter_async_context(httpx2.AsyncClient())
            client = await stack.enter_async_context(new_http_client())
            ours, close = through_connector(adapter, root, client)
            makers: dict[str, Callable[[], Ask]] = {
                "anthropic": lambda: bare_messages(root, plain),
                "google": lambda: bare_gemini(root, plain),
            }
            bare = makers.get(adapter.type, lambda: bare_chat(root, adapter, plain))()
        stack.push_async_callback(close)
        yield bare, ours


async def run(types: list[str], *, calls: int, rounds: int) -> list[Cost]:
    """The cost of each type, without streaming and with."""
    adapters = {adapter.type: adapter for adapter in ADAPTERS if adapter.type in types}
    costs: list[Cost] = []
    with canned_servers({name: adapter.wire for name, adapter in adapters.items() if adapter.wire}) as roots:
        for name, adapter in adapters.items():
            fewer = max(1, calls // 20) if name == LOCAL else calls
            async with both(adapter, roots.get(name, "")) as (bare, ours):
                for streamed in (False, True):
                    count = max(1, fewer // 4) if streamed else fewer  # a stream takes ten times as long
                    costs.append(
                        await measure(bare, ours, provider=name, streamed=streamed, calls=count, rounds=rounds)
                    )
    return costs


def measurable_types() -> list[str]:
    """Those that call somebody, or compute, and whose packages are here. `simulated` has no SDK under it."""
    return [
        adapter.type
        for adapter in ADAPTERS
        if (adapter.wire or adapter.type == LOCAL) and all(find_spec(name) for name in adapter.needs)
    ]


def show(costs: list[Cost]) -> None:
    """A table, for people."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("PROVIDER")
    for heading in ("STREAMED", "BARE SDK µs", "CONNECTOR µs", "ON TOP"):
        table.add_column(heading, justify="right")
    for cost in costs:
        over = "" if cost.on_top_percent <= AIM_PERCENT else f"  over {AIM_PERCENT:g} %"
        streamed = "yes" if cost.streamed else "no"
        table.add_row(
            cost.provider,
            streamed,
            f"{cost.bare_us:.0f}",
            f"{cost.connector_us:.0f}",
            f"{cost.on_top_percent:+.1f} %{over}",
        )
    Console(highlight=False).print(table)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("types", nargs="*", help="types of providers; absent: all")
    parser.add_argument("--calls", type=int, default=300, help="in a round; a quarter of it streamed")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", dest="as_json")
    given = parser.parse_args()
    costs = asyncio.run(run(given.types or measurable_types(), calls=given.calls, rounds=given.rounds))
    if given.as_json:
        rows = [asdict(cost) | {"on_top_percent": cost.on_top_percent} for cost in costs]
        print(json.dumps({"aim_percent": AIM_PERCENT, "costs": rows}, indent=2))
    else:
        show(costs)


if __name__ == "__main__":
    main()
