"""`sluice send`: a request from flags, a file or standard input; its result on demand."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer
from rich.console import Console
from rich.progress import Progress

from connectors.kafka.access import check_access
from connectors.settings import Settings
from schemas import LLMRequest, LLMResult
from schemas.vocabulary import State
from sluice.client import Client
from sluice.commands.endings import fail, kafka_problems, misused, note
from sluice.commands.interrupts import Interrupts
from sluice.commands.loading import configure_command_logs, settings_or_exit
from sluice.commands.request_lines import RequestLineError, RequestLines, parse_request

EXIT_NOT_COMPLETED = 1
EXIT_TIMEOUT = 3
EXIT_INTERRUPTED = 130
SENDS_AT_ONCE = 256
WAITING_AT_ONCE = 1000
"""Requests that are sent and have no result yet: the next is read when one of them ends."""


def send(
    text: Annotated[str | None, typer.Argument(help="The user's message of a chat.", show_default=False)] = None,
    *,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="Requests as JSON lines; - for standard input.", show_default=False),
    ] = None,
    request_id: Annotated[str | None, typer.Option("--id", help="Absent: a new UUID.", show_default=False)] = None,
    model: Annotated[str | None, typer.Option(help="Absent: the provider's default.", show_default=False)] = None,
    provider: Annotated[
        str | None, typer.Option(help="Pin it to a provider. Absent: the router chooses.", show_default=False)
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="On whose behalf.", show_default="default")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Publish tokens to llm.deltas as they arrive.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="Print each result as it comes; end with the last.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for each.", min=0.1)] = 300.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Send requests, and print their results on demand.

    \b
    Examples:
      sluice send "Say hello" --wait
      sluice send "Say hello" --provider openai --model gpt-5-mini --wait --json
      sluice send -f requests.jsonl
      jq -c '.[]' requests.json | sluice send -f - --wait
      sluice send -f requests.jsonl --wait --json > results.jsonl

    \b
    Exit codes:
      0    sent (with --wait: all completed)
      1    with --wait: some ended otherwise
      2    called wrongly, or a request is not valid; nothing was sent
      3    the time ran out: not all are sent, or with --wait not all have a result
      4    Kafka could not be used
      130  interrupted; what was sent goes on
    """
    settings = settings_or_exit()
    configure_command_logs(settings, command="send")
    flags = {"request_id": request_id, "model": model, "provider": provider, "tenant_id": tenant}
    job = _Job(settings=settings, timeout_seconds=timeout, wait=wait, as_json=as_json)
    with Interrupts() as interrupts, ExitStack() as context:
        try:
            if file is None:
                job.requests, job.count = [_from_flags(text, stream=stream, **flags)], 1
            else:
                _refuse_flags_with_a_file(text, stream=stream, **flags)
                lines = context.enter_context(_opened(file))
                job.requests, job.count = lines, lines.count
            with kafka_problems(settings), _progress(job):
                interrupts.run(job.run())
        except KeyboardInterrupt:
            fail(f"Interrupted. {job.sent} of {job.count or '?'} were sent, and go on.", EXIT_INTERRUPTED)
    _end(job)


@dataclass(kw_only=True)
class _Job:
    """What is to be sent, and what became of it."""

    settings: Settings
    timeout_seconds: float
    wait: bool
    as_json: bool
    requests: Iterable[LLMRequest] = ()
    count: int = 0
    sent: int = 0
    late: int = 0
    not_completed: int = 0
    on_result: Callable[[], object] = lambda: None

    async def run(self) -> None:
        async with Client(self.settings, source="/sluice/send") as client:
            if self.wait:
                await client.start_reading()
            requests = iter(self.requests)
            count = min(self.count, WAITING_AT_ONCE if self.wait else SENDS_AT_ONCE)
            workers = [asyncio.create_task(self._work(client, requests)) for _ in range(count)]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.wait(workers)

    async def _work(self, client: Client, requests: Iterator[LLMRequest]) -> None:
        for request in requests:
            try:
                await (self._call if self.wait else self._submit)(client, request)
            except TimeoutError:
                # Why is it late? Where Kafka is away, this says so.
                await check_access(self.settings)
                self.late += 1

    async def _submit(self, client: Client, request: LLMRequest) -> None:
        async with asyncio.timeout(self.timeout_seconds):
            await client.submit(request)
        self.sent += 1
        typer.echo(json.dumps({"request_id": request.request_id}) if self.as_json else request.request_id)

    async def _call(self, client: Client, request: LLMRequest) -> None:
        self.sent += 1
        result = await client.call(request, timeout_seconds=self.timeout_seconds)
        self.not_completed += result.status is not State.COMPLETED
        typer.echo(result.model_dump_json(exclude_none=True) if self.as_json else self._as_text(result))
        self.on_result()

    def _as_text(self, result: LLMResult) -> str:
        if result.answer is not None:
            return result.answer.text if self.count == 1 else f"{result.request_id}: {result.answer.text}"
        problem = result.problem
        return f"{result.request_id}: {result.status}" + (
            f" ({problem.category}): {problem.message}" if problem else ""
        )


def _end(job: _Job) -> None:
    if job.late and job.wait:
        fail(
            f"{job.late} of {job.count} had no result within {job.timeout_seconds:g} s. They go on, or had ended "
            "before: `sluice watch ID` shows it.",
            EXIT_TIMEOUT,
        )
    if job.late:
        fail(f"{job.late} of {job.count} were not taken by Kafka within {job.timeout_seconds:g} s.", EXIT_TIMEOUT)
    if job.not_completed:
        if job.count > 1:
            note(f"{job.not_completed} of {job.count} did not complete.")
        raise typer.Exit(EXIT_NOT_COMPLETED)


@contextmanager
def _progress(job: _Job) -> Iterator[None]:
    """A bar on the terminal, where results do not scroll there by themselves."""
    if not job.wait or not sys.stderr.isatty() or sys.stdout.isatty():
        yield
        return
    # Not redirected: the results are to go where standard output goes, not past the bar to the terminal.
    with Progress(console=Console(stderr=True), redirect_stdout=False, transient=True) as progress:
        bar = progress.add_task("waiting", total=job.count)
        job.on_result = lambda: progress.advance(bar)
        yield


def _opened(file: Path) -> RequestLines:
    try:
        return RequestLines(file)
    except RequestLineError as error:
        misused(str(error))
    except OSError as error:
        misused(f"{file}: {error.strerror or error}")


def _from_flags(text: str | None, *, stream: bool, **given: str | None) -> LLMRequest:
    if text is None:
        misused("give either a text or --file: sluice send 'Say hello', or sluice send -f requests.jsonl")
    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    fields = {"request_id": str(uuid4()), "messages": [{"role": "user", "content": text}], "stream": stream, **fields}
    try:
        return parse_request(json.dumps(fields).encode(), where="the request")
    except RequestLineError as error:
        misused(str(error))


def _refuse_flags_with_a_file(text: str | None, *, stream: bool, **given: str | None) -> None:
    """They would be ignored: each line of the file says its own."""
    if text is not None or stream or any(value is not None for value in given.values()):
        misused("with --file each line says what is sent: leave the text, --id and the other flags of a request out")
