"""A model run by llama.cpp in this process. All of it blocks, and belongs to one thread (see `llama_cpp`).

Tokens come from the library's `generate`. Its ready-made completions are not used: they lose pieces of more than 32
bytes, drop bytes that are no UTF-8 without a word, and cannot be stopped while they read the prompt.
"""

import ctypes
import io
import secrets
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from typing import Any

import llama_cpp
import structlog
from llama_cpp.llama_chat_format import CHATML_CHAT_TEMPLATE, Jinja2ChatFormatter
from llama_cpp.llama_grammar import LlamaGrammar

from connectors.providers.base import Call
from connectors.providers.llama_cpp_options import LlamaCppOptions
from schemas.request import Message

log = structlog.get_logger(__name__)

DEFAULT_TEMPERATURE = 0.8
DEFAULT_TOP_P = 0.95
"""llama.cpp's own."""

_LOGGED_LEVELS = frozenset({3, 4})
"""GGML_LOG_LEVEL_WARN and GGML_LOG_LEVEL_ERROR, as ggml.h has them (the library's own list is an older one)."""


class StoppedError(Exception):
    """Nobody waits for the answer any more."""


class ModelLoadError(Exception):
    """The file is no model that llama.cpp can run, or there is not enough memory for it."""


class PromptError(Exception):
    """The model's chat template refuses the messages."""


class GrammarRefusedError(Exception):
    """llama.cpp cannot read the grammar."""


class LocalModel:
    """Loaded by its first use, and kept until `close`."""

    def __init__(self, options: LlamaCppOptions) -> None:
        self._options = options
        self._llama: Any | None = None
        self.context_tokens = options.context_tokens

    def prompt(self, messages: tuple[Message, ...]) -> list[int]:
        """The tokens of a chat, put together by the model's own template. Raises `PromptError`, `ModelLoadError`."""
        llama = self._loaded()
        begin, end = (self._special(llama, token) for token in (llama.token_bos(), llama.token_eos()))
        template = self._options.chat_template or llama.metadata.get("tokenizer.chat_template") or CHATML_CHAT_TEMPLATE
        turns: Any = [{"role": message.role.value, "content": message.content} for message in messages]
        try:
            text = Jinja2ChatFormatter(template=template, bos_token=begin, eos_token=end)(messages=turns).prompt
        except Exception as error:  # a template is a program of the model's author: it may raise anything
            raise PromptError(type(error).__name__) from error
        has_begin = bool(begin) and text.startswith(begin)
        tokens: list[int] = llama.tokenize(text.encode(), add_bos=not has_begin, special=True)
        return tokens

    def read(self, prompt: list[int], *, stopped: Callable[[], bool]) -> int:
        """Takes the prompt in, as far as it is not the start of the last one. Returns how many tokens that saved.

        Raises `StoppedError`, looked for before each batch.
        """
        llama = self._loaded()
        known = self._keep_common_start(llama, prompt)
        for start in range(known, len(prompt), llama.n_batch):
            _look(stopped)
            llama.eval(prompt[start : start + llama.n_batch])
        return known

    def tokens(
        self, prompt: list[int], call: Call, *, grammar: str | None, stopped: Callable[[], bool]
    ) -> Iterator[bytes | None]:
        """The answer to a prompt that was read: the bytes of each token; None is the end that the model gave it.

        Raises `GrammarRefusedError`, and `StoppedError`, looked for before each token.
        """
        llama = self._loaded()
        given = call.parameters
        llama.set_seed(secrets.randbits(31) if given.seed is None else given.seed & 0xFFFF_FFFF)
        vocabulary = llama_cpp.llama_model_get_vocab(llama.model)
        if grammar is not None:
            _try_grammar(vocabulary, grammar)
        _look(stopped)
        for token in llama.generate(
            prompt,
            temp=DEFAULT_TEMPERATURE if given.temperature is None else given.temperature,
            top_p=DEFAULT_TOP_P if given.top_p is None else given.top_p,
            grammar=None if grammar is None else LlamaGrammar.from_string(grammar),
        ):
            if llama_cpp.llama_vocab_is_eog(vocabulary, token):
                yield None
                return
            yield _piece(vocabulary, token)
            _look(stopped)

    def forget(self) -> None:
        """What it has in its memory may be half of something: the next prompt is read from its start."""
        if self._llama is not None:
            self._llama.reset()

    def close(self) -> None:
        if self._llama is not None:
            self._llama.close()
            self._llama = None

    def _loaded(self) -> Any:
        if self._llama is None:
            self._llama = self._load()
            self.context_tokens = self._llama.n_ctx()
        return self._llama

    def _load(self) -> Any:
        options = self._options
        llama_cpp.llama_log_set(_LOG_CALLBACK, ctypes.c_void_p(0))
        try:
            # Not quiet by `verbose=False`: that sends the whole process's output to /dev/null while the model loads.
            with redirect_stderr(io.StringIO()):
                llama = llama_cpp.Llama(
                    str(options.model_path),
                    n_ctx=options.context_tokens,
                    n_batch=options.batch_tokens,
                    n_threads=options.threads,
                    n_threads_batch=options.threads,
                    n_gpu_layers=options.gpu_layers,
                    verbose=True,
                )
        except (ValueError, RuntimeError, MemoryError) as error:
            raise ModelLoadError(type(error).__name__) from error
        llama.verbose = False
        return llama

    @staticmethod
    def _keep_common_start(llama: Any, prompt: list[int]) -> int:
        """What the model has in its memory of the last prompt and needs not read again; never the whole."""
        known = 0
        for before, now in zip(llama.input_ids[: llama.n_tokens], prompt[:-1], strict=False):
            if before != now:
                break
            known += 1
        memory = llama_cpp.llama_get_memory(llama.ctx)
        if known and llama_cpp.llama_memory_seq_rm(memory, -1, known, -1):
            llama.n_tokens = known
            return known
        llama.reset()  # a model whose memory cannot be cut
        return 0

    @staticmethod
    def _special(llama: Any, token: int) -> str:
        return "" if token < 0 else llama.detokenize([token], special=True).decode(errors="replace")


def _look(stopped: Callable[[], bool]) -> None:
    if stopped():
        raise StoppedError


def _piece(vocabulary: Any, token: int) -> bytes:
    size = 64
    while True:
        buffer = ctypes.create_string_buffer(size)
        length = llama_cpp.llama_token_to_piece(vocabulary, token, buffer, size, 0, False)
        if length >= 0:
            return buffer.raw[:length]
        size = -length


def _try_grammar(vocabulary: Any, grammar: str) -> None:
    # `generate` would go on with a null pointer.
    sampler = llama_cpp.llama_sampler_init_grammar(vocabulary, grammar.encode(), b"root")
    if not sampler:
        raise GrammarRefusedError
    llama_cpp.llama_sampler_free(sampler)


def _on_log(level: int, text: bytes, _data: ctypes.c_void_p) -> None:
    if level in _LOGGED_LEVELS:
        log.warning("llama_cpp", said=text.decode(errors="replace").strip()[:500])


_LOG_CALLBACK: Any = llama_cpp.llama_log_callback(_on_log)
"""Kept here, for llama.cpp holds no reference to it."""
