"""`sluice send`: a request from flags, a file or standard input; its result on demand."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer
from aiokafka.errors import KafkaError
from rich.console import Console
from rich.progress import Progress

from connectors.logs import configure_logs
from connectors.settings import Settings
from schemas import LLMRequest, LLMResult
from schemas.codec import CodecError, decode_json
from schemas.vocabulary import State
from sluice.client import Client
from sluice.commands.loading import misused, settings_or_exit

EXIT_NOT_COMPLETED = 1
EXIT_TIMEOUT = 3
EXIT_KAFKA = 4
MAX_AT_ONCE = 256


def send(
    text: Annotated[str | None, typer.Argument(help="The user's message of a chat.", show_default=False)] = None,
    *,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="Requests as JSON lines; - for standard input.", show_default=False),
    ] = None,
    request_id: Annotated[str | None, typer.Option("--id", help="Absent: a new UUID.", show_default=False)] = None,
    model: Annotated[str | None, typer.Option(show_default=False)] = None,
    provider: Annotated[str | None, typer.Option(help="Pin it to a provider.", show_default=False)] = None,
    tenant: Annotated[str, typer.Option()] = "default",
    stream: Annotated[bool, typer.Option("--stream", help="Publish tokens to llm.deltas as they arrive.")] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the results and print them.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.", min=0.1)] = 300.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Send requests, and print their results on demand.

    \b
    Examples:
      sluice send "Say hello" --wait
      sluice send "Say hello" --provider openai --model gpt-5-mini --wait --json
      echo '{"request_id": "a-1", "messages": [{"role": "user", "content": "hi"}]}' | sluice send -f -
      sluice send -f requests.jsonl --wait --json > results.jsonl

    \b
    Exit codes:
      0  sent (with --wait: all completed)
      1  with --wait: some ended otherwise
      2  called wrongly, or a request is not valid; nothing was sent
      3  with --wait: the time ran out
      4  Kafka could not be reached
    """
    settings = settings_or_exit()
    configure_logs(settings.log.model_copy(update={"level": "error"}), role="send")
    if (text is None) == (file is None):
        misused("give either a text or --file: sluice send 'Say hello', or sluice send -f requests.jsonl")
    requests = (
        _from_file(file)
        if file is not None
        else [
            _from_flags(text or "", request_id=request_id, model=model, provider=provider, tenant=tenant, stream=stream)
        ]
    )
    try:
        results = asyncio.run(_send(settings, requests, wait=wait, timeout_seconds=timeout))
    except TimeoutError:
        Console(stderr=True).print(f"no result within {timeout:g} s; the request goes on (sluice watch)", style="red")
        raise typer.Exit(EXIT_TIMEOUT) from None
    except KafkaError as error:
        Console(stderr=True).print(f"Kafka at {settings.kafka_bootstrap}: {error}", style="red", markup=False)
        raise typer.Exit(EXIT_KAFKA) from None
    if not wait:
        for request in requests:
            typer.echo(json.dumps({"request_id": request.request_id}) if as_json else request.request_id)
        return
    for result in results:
        typer.echo(result.model_dump_json(exclude_none=True) if as_json else _as_text(result))
    if any(result.status is not State.COMPLETED for result in results):
        raise typer.Exit(EXIT_NOT_COMPLETED)


async def _send(
    settings: Settings, requests: list[LLMRequest], *, wait: bool, timeout_seconds: float
) -> list[LLMResult]:
    async with Client(settings, source="/sluice/send") as client:
        slots = asyncio.Semaphore(MAX_AT_ONCE if not wait else len(requests))

        async def submit(request: LLMRequest) -> None:
            async with slots:
                await client.submit(request)

        if not wait:
            await asyncio.gather(*(submit(request) for request in requests))
            return []
        await client.start_reading()
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
            bar = progress.add_task("waiting", total=len(requests))

            async def call(request: LLMRequest) -> LLMResult:
                result = await client.call(request, timeout_seconds=timeout_seconds)
                progress.advance(bar)
                return result

            return await asyncio.gather(*(call(request) for request in requests))


def _from_flags(
    text: str, *, request_id: str | None, model: str | None, provider: str | None, tenant: str, stream: bool
) -> LLMRequest:
    fields: dict[str, Any] = {
        "request_id": request_id or str(uuid4()),
        "tenant_id": tenant,
        "messages": [{"role": "user", "content": text}],
        "model": model,
        "provider": provider,
        "stream": stream,
    }
    return _parse(json.dumps(fields).encode(), "the request")


def _from_file(path: Path) -> list[LLMRequest]:
    if str(path) != "-" and not path.is_file():
        misused(f"{path}: no such file")
    lines = (sys.stdin if str(path) == "-" else path.open(encoding="utf-8")).read().splitlines()
    requests = [_parse(line.encode(), f"{path}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not requests:
        misused(f"{path}: holds no request")
    return requests


def _parse(data: bytes, where: str) -> LLMRequest:
    try:
        return decode_json(LLMRequest, data)
    except CodecError as error:
        misused(f"{where}: {error.field + ': ' if error.field else ''}{error.reason}")


def _as_text(result: LLMResult) -> str:
    if result.answer is not None:
        return result.answer.text
    problem = result.problem
    return f"{result.request_id}: {result.status}" + (f" ({problem.category}): {problem.message}" if problem else "")
