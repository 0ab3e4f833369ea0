"""llama.cpp in process and the event loop: it goes on, a cancel ends a call, and what waits is bounded."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from connectors.providers.base import Call, Text
from schemas.request import Message
from schemas.vocabulary import FailureCategory as F
from schemas.vocabulary import Role
from tests.providers.calls import a_call, answer_of, events_of, failure_of
from tests.providers.local_models import NO_GGUF, NO_LLAMA, YES, options, provider_of

pytest.importorskip("llama_cpp", reason=NO_LLAMA)
pytest.importorskip("gguf", reason=NO_GGUF)

from connectors.providers.llama_cpp import LlamaCppProvider
from connectors.providers.llama_cpp_call import answer
from connectors.providers.llama_cpp_model import LocalModel
from connectors.providers.llama_cpp_options import LlamaCppOptions
from tests.support.tiny_gguf import write_tiny_gguf

WITHIN_SECONDS = 60


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf")


class GatedModel(LocalModel):
    """A real model that stops after its first token until the test lets it go on."""

    def __init__(self, path: Path) -> None:
        super().__init__(LlamaCppOptions.model_validate(options(path)))
        self.gate = threading.Event()
        self.made = 0

    def tokens(
        self, prompt: list[int], call: Call, *, grammar: str | None, stopped: Callable[[], bool]
    ) -> Iterator[bytes | None]:
        for piece in super().tokens(prompt, call, grammar=grammar, stopped=stopped):
            self.made += 1
            yield piece
            assert self.gate.wait(WITHIN_SECONDS)


@pytest.fixture
async def gated(model_path: Path) -> AsyncIterator[tuple[GatedModel, LlamaCppProvider]]:
    model = GatedModel(model_path)
    provider = LlamaCppProvider("local", model, answer, max_waiting=1)
    yield model, provider
    model.gate.set()
    await provider.close()


async def test_the_loop_goes_on_while_the_model_works(gated: tuple[GatedModel, LlamaCppProvider]) -> None:
    """The model waits for the loop here, amid its answer: were the loop to wait for the model, nothing would end."""
    model, provider = gated
    asyncio.get_running_loop().call_later(0.01, model.gate.set)
    async with asyncio.timeout(WITHIN_SECONDS):
        await answer_of(provider, a_call(response_schema=YES))


async def test_a_timer_ticks_while_a_long_prompt_is_read(model_path: Path) -> None:
    """llama.cpp takes thousands of tokens in one go here, and leaves the interpreter to the loop meanwhile."""
    provider = provider_of(model_path, batch_tokens=4096)
    long = a_call(messages=(Message(role=Role.USER, content="x" * 3900),), response_schema=YES)
    await answer_of(provider, a_call(response_schema=YES))  # it is loaded now
    ticks = 0
    async with asyncio.timeout(WITHIN_SECONDS), asyncio.TaskGroup() as tasks:
        working = tasks.create_task(answer_of(provider, long))
        while not working.done():
            await asyncio.sleep(0.001)
            ticks += 1
    await provider.close()
    assert ticks > 10


async def test_a_cancelled_call_ends_at_its_next_token(gated: tuple[GatedModel, LlamaCppProvider]) -> None:
    """Left after its first token, it makes no second one, and the model is free for the next call."""
    model, provider = gated
    async with asyncio.timeout(WITHIN_SECONDS):
        async with provider.open(a_call(stream=True)) as events:
            assert isinstance(await anext(events), Text)
        model.gate.set()
        await answer_of(provider, a_call(response_schema=YES))
    assert model.made == 1 + len('"yes"') + 1


class GatedReading(LocalModel):
    """A real model that stops after the first batch of its prompt until the test lets it go on."""

    def __init__(self, path: Path) -> None:
        super().__init__(LlamaCppOptions.model_validate(options(path, batch_tokens=16)))
        self.gate, self.first_batch_read = threading.Event(), threading.Event()
        self.looks = 0

    def read(self, prompt: list[int], *, stopped: Callable[[], bool]) -> int:
        def look() -> bool:
            self.looks += 1
            if self.looks == 2:
                self.first_batch_read.set()
                assert self.gate.wait(WITHIN_SECONDS)
            return stopped()

        return super().read(prompt, stopped=look)


async def test_a_call_that_is_cancelled_while_its_prompt_is_read_reads_no_further(model_path: Path) -> None:
    """It ends before the next batch, and the model is free."""
    model = GatedReading(model_path)
    provider = LlamaCppProvider("local", model, answer, max_waiting=1)
    reading = asyncio.create_task(events_of(provider, a_call(stream=True)))
    async with asyncio.timeout(WITHIN_SECONDS):
        await asyncio.to_thread(model.first_batch_read.wait, WITHIN_SECONDS)
        reading.cancel()
        await asyncio.wait([reading])
        model.gate.set()
        await provider.close()
    assert reading.cancelled()
    assert model.looks == 2


async def test_a_call_that_was_cancelled_while_it_waited_is_never_begun(
    gated: tuple[GatedModel, LlamaCppProvider],
) -> None:
    """Nothing is computed for it."""
    model, provider = gated
    async with asyncio.timeout(WITHIN_SECONDS), provider.open(a_call(stream=True)) as events:
        await anext(events)
        waiting = asyncio.create_task(events_of(provider, a_call(stream=True)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    model.gate.set()
    await provider.close()
    assert model.made == 1


async def test_too_many_calls_are_told_so(gated: tuple[GatedModel, LlamaCppProvider]) -> None:
    """One runs, as many wait as may; the next is not queued without bounds, but comes back later."""
    model, provider = gated
    async with asyncio.timeout(WITHIN_SECONDS), provider.open(a_call(stream=True)) as events:
        await anext(events)
        waiting = asyncio.create_task(answer_of(provider, a_call(response_schema=YES)))
        await asyncio.sleep(0)
        failed = await failure_of(provider, a_call())
        assert (failed.problem.category, failed.problem.retryable) == (F.OVERLOADED, True)
        model.gate.set()
    assert (await waiting).text.strip() == '"yes"'


async def test_closing_ends_what_runs(gated: tuple[GatedModel, LlamaCppProvider]) -> None:
    """Close waits for the model's thread, which is told to stop; no thread is left."""
    model, provider = gated
    before = set(threading.enumerate())
    running = asyncio.create_task(events_of(provider, a_call(stream=True)))
    async with asyncio.timeout(WITHIN_SECONDS):
        while not model.made:
            await asyncio.sleep(0.001)
        closing = asyncio.create_task(provider.close())
        await asyncio.sleep(0)
        model.gate.set()
        await closing
    assert model.made == 1
    left = set(threading.enumerate()) - before
    assert not [thread for thread in left if thread.name.startswith("llama_cpp")]
    running.cancel()
