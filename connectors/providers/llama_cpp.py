"""llama.cpp in this process, with a model from a file. (Its server is a provider of type `openai_compatible`.)

The model blocks, so it has a thread of its own, and takes one call after the other; llama.cpp leaves the interpreter
to the event loop while it computes. A call that is cancelled ends at its next token, or at the next batch of its
prompt, and the next call begins.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

import structlog

from connectors.providers.base import CallEvent, Failed, Text
from connectors.providers.checking import Reached
from connectors.providers.errors import ProviderConfigurationError
from connectors.providers.llama_cpp_options import LlamaCppOptions
from policy.failures import problem
from schemas.vocabulary import FailureCategory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from connectors.providers.base import Call, Outcome, Provider
    from connectors.providers.llama_cpp_model import LocalModel
    from connectors.providers.registry import Surroundings
    from policy.catalogue import ProviderEntry

    Answer = Callable[..., Outcome | None]

log = structlog.get_logger(__name__)

_MAGIC = b"GGUF"


def build(name: str, entry: ProviderEntry, _around: Surroundings) -> Provider:
    """A provider of type `llama_cpp`. The model is loaded by its first call, not here."""
    options = LlamaCppOptions.model_validate(entry.options)
    _check_file(name, options)
    try:
        from connectors.providers.llama_cpp_call import answer  # noqa: PLC0415 - only where this lane runs
        from connectors.providers.llama_cpp_model import LocalModel  # noqa: PLC0415 - likewise
    except (RuntimeError, OSError) as error:
        raise ProviderConfigurationError(name, f"llama.cpp cannot be loaded: {error}") from error
    return LlamaCppProvider(name, LocalModel(options), answer, max_waiting=options.max_waiting)


class LlamaCppProvider:
    """One model. Safe for many calls at once: all but one of them wait."""

    def __init__(self, name: str, model: LocalModel, answer: Answer, *, max_waiting: int) -> None:
        self.name = name
        self._model = model
        self._answer = answer
        self._max_waiting = max_waiting
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"llama_cpp-{name}")
        self._jobs: dict[Future[None], threading.Event] = {}
        """Calls that run or wait, each with its stop sign."""

    def open(self, call: Call) -> AbstractAsyncContextManager[AsyncIterator[CallEvent]]:
        return aclosing(self._events(call))

    async def close(self) -> None:
        for stop in list(self._jobs.values()):
            stop.set()
        with suppress(RuntimeError):  # it was closed before
            self._thread.submit(self._model.close)
        await asyncio.to_thread(self._thread.shutdown)

    async def check(self, *, timeout_seconds: float) -> Reached:  # noqa: ARG002 - a file needs no waiting for
        """The file was there when this was built; more would mean loading it."""
        return Reached()

    async def _events(self, call: Call) -> AsyncGenerator[CallEvent, None]:
        if len(self._jobs) > self._max_waiting:
            full = f"{len(self._jobs)} calls run or wait for this model already"
            yield Failed(problem=problem(FailureCategory.OVERLOADED, full))
            return
        loop = asyncio.get_running_loop()
        inbox: asyncio.Queue[CallEvent] = asyncio.Queue()  # bounded by the model's context
        stop = threading.Event()

        def tell(event: CallEvent) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(inbox.put_nowait, event)

        job = self._thread.submit(self._run, call, tell, stop)
        self._jobs[job] = stop
        job.add_done_callback(lambda done: self._jobs.pop(done, None))
        try:
            while True:
                event = await inbox.get()
                yield event
                if not isinstance(event, Text):
                    return
        finally:
            stop.set()
            job.cancel()

    def _run(self, call: Call, tell: Callable[[CallEvent], None], stop: threading.Event) -> None:
        """In the model's thread. Whatever happens there, the call gets its end."""
        if stop.is_set():
            return
        say: Callable[[str], None] = (lambda text: tell(Text(text))) if call.stream else (lambda _text: None)
        try:
            outcome = self._answer(self._model, call, tell=say, stopped=stop.is_set)
        except Exception as error:  # noqa: BLE001 - not even a bug may leave the call without its end
            # Without the error's text, which may quote the prompt.
            log.error("llama_cpp_broke", provider=self.name, request_id=call.request_id, error=type(error).__name__)  # noqa: TRY400
            outcome = Failed(problem=problem(FailureCategory.UNKNOWN, f"{type(error).__name__} in the connector"))
        if outcome is not None:
            tell(outcome)


def _check_file(name: str, options: LlamaCppOptions) -> None:
    try:
        with options.model_path.open("rb") as file:
            is_model = file.read(len(_MAGIC)) == _MAGIC
    except OSError as error:
        raise ProviderConfigurationError(name, f"options.model_path: {error.strerror}: {options.model_path}") from error
    if not is_model:
        raise ProviderConfigurationError(name, f"options.model_path: {options.model_path} is no file in GGUF format")
