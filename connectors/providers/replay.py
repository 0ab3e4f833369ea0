"""Plays recorded calls back (see `recorder`): the same question gets the answer, or the failure, that was recorded.

Where a question was recorded several times its recordings are played in their order, and the last one again and
again. Everything is deterministic, but for the order in which calls come.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from connectors.providers.base import Answered, Call, CallEvent, Failed, Text
from connectors.providers.checking import Reached
from connectors.providers.errors import ProviderConfigurationError
from connectors.providers.recording import Recording, key_of
from policy.failures import problem
from schemas.vocabulary import FailureCategory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from connectors.providers.base import Provider
    from connectors.providers.registry import Surroundings
    from policy.catalogue import ProviderEntry

MAX_FILES = 10_000
_ANY = "any"


class ReplayOptions(BaseModel):
    """`match`: by what was asked, or simply one after the other. `pace`: at once, or as slowly as it was recorded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path = Field(default=Path("llm_response_logs"), description="searched with all folders in it")
    match: Literal["content", "order"] = "content"
    pace: Literal["at_once", "recorded"] = "at_once"


def build(name: str, entry: ProviderEntry, _around: Surroundings) -> Provider:
    """A provider of type `replay`."""
    options = ReplayOptions.model_validate(entry.options)
    return ReplayProvider(name, options, _recordings(name, options.folder))


class ReplayProvider:
    """Safe for many calls at once. Holds every recording: it is for development."""

    def __init__(self, name: str, options: ReplayOptions, recordings: list[Recording]) -> None:
        self.name = name
        self._options = options
        self._recordings: dict[str, list[Recording]] = defaultdict(list)
        self._played: Counter[str] = Counter()
        for recording in recordings:
            self._recordings[_ANY if options.match == "order" else recording.key].append(recording)

    def open(self, call: Call) -> AbstractAsyncContextManager[AsyncIterator[CallEvent]]:
        return aclosing(self._events(call))

    async def close(self) -> None:
        """There is nothing to close."""

    async def check(self, *, timeout_seconds: float) -> Reached:  # noqa: ARG002 - nothing is waited for
        """The recordings were read when this was built."""
        return Reached()

    async def _events(self, call: Call) -> AsyncGenerator[CallEvent, None]:
        recording = self._next(call)
        outcome = None if recording is None else recording.outcome
        if recording is None or outcome is None:
            missing = problem(
                FailureCategory.NOT_FOUND,
                "there is no recording of this call",
                remedy="record it with RECORD_LLM_RESPONSES=true, or play back with options.match = 'order'",
            )
            yield Failed(problem=missing)
            return
        past_ms = 0.0
        for at_ms, text in _pieces(recording) if call.stream else []:
            await self._wait(at_ms - past_ms)
            past_ms = at_ms
            yield Text(text)
        await self._wait(recording.ended_after_ms - past_ms)
        yield outcome

    def _next(self, call: Call) -> Recording | None:
        key = _ANY if self._options.match == "order" else key_of(call)
        found = self._recordings.get(key, [])
        number = self._played[key]
        self._played[key] += 1
        if self._options.match == "order":
            return found[number] if number < len(found) else None
        return found[min(number, len(found) - 1)] if found else None

    async def _wait(self, milliseconds: float) -> None:
        if self._options.pace == "recorded":
            await asyncio.sleep(max(0.0, milliseconds) / 1000)


def _pieces(recording: Recording) -> list[tuple[float, str]]:
    """As they were streamed; an answer that came whole is one piece."""
    if not recording.pieces and isinstance(recording.outcome, Answered):
        return [(recording.ended_after_ms, recording.outcome.text)]
    return [(piece.at_ms, piece.text) for piece in recording.pieces]


def _recordings(name: str, folder: Path) -> list[Recording]:
    paths = sorted(folder.rglob("*.json"), key=lambda path: path.name)
    if not paths:
        raise ProviderConfigurationError(name, f"options.folder: there are no recordings in {folder}")
    if len(paths) > MAX_FILES:
        raise ProviderConfigurationError(name, f"options.folder: {folder} has more than {MAX_FILES:,} files")
    read = [_read(name, path) for path in paths]
    # Of a call that was cancelled there is no end to play.
    return sorted((one for one in read if one.outcome is not None), key=lambda recording: recording.recorded_at)


def _read(name: str, path: Path) -> Recording:
    try:
        return Recording.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ProviderConfigurationError(name, f"options.folder: {path} is no recording") from error
