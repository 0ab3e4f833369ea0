"""The recorder for development: with RECORD_LLM_RESPONSES=true each call is written to a file of its own.

Prompts and answers are in the files, in the clear: that is what they are for, and why nobody gets them unasked. Keys
are taken out, those of the environment and what looks like one. RECORD_LLM_RESPONSES_TO names the folder, else it is
`llm_response_logs`. What a recorder cannot write is told in the log, and harms no call.
"""

import os
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from datetime import UTC, datetime
from pathlib import Path

import structlog

from connectors.providers.base import Answered, Call, CallEvent, Failed, Provider, Text
from connectors.providers.errors import ProviderConfigurationError
from connectors.providers.recording import Piece, Recording, key_of

log = structlog.get_logger(__name__)

SWITCH_VARIABLE = "RECORD_LLM_RESPONSES"
FOLDER_VARIABLE = "RECORD_LLM_RESPONSES_TO"
DEFAULT_FOLDER = "llm_response_logs"
MAX_FILES = 10_000
"""In the folder, those of earlier runs included. Then recording ends, rather than the disk's room."""
MAX_CHARACTERS = 4_000_000
"""Of one file."""

_ON = frozenset({"1", "true", "yes", "on"})
_HOLDS_A_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL")
_SHORTEST_SECRET = 8
_LOOKS_LIKE_A_KEY = re.compile(
    r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}|\bAIza[A-Za-z0-9_-]{30,}|\bBearer [A-Za-z0-9._~+/=-]{16,}"
)


class _TooLargeError(ValueError):
    """A call of more than `MAX_CHARACTERS`."""


def with_recording(provider: Provider, environ: Mapping[str, str]) -> Provider:
    """The provider itself, or one that records its calls, as the environment says.

    Raises `ProviderConfigurationError` where it should be recorded and there is no folder to write to.
    """
    if environ.get(SWITCH_VARIABLE, "").strip().lower() not in _ON:
        return provider
    folder = Path(environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER) / provider.name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        written = sum(1 for _ in folder.parent.rglob("*.json"))
    except OSError as error:
        raise ProviderConfigurationError(provider.name, f"{SWITCH_VARIABLE}: {folder}: {error.strerror}") from error
    log.warning(
        "recording_llm_responses",
        provider=provider.name,
        folder=str(folder),
        consequence="prompts and answers are written to files in the clear",
    )
    return RecordingProvider(provider, folder, secrets=_secrets(environ), room=MAX_FILES - written)


class RecordingProvider:
    """Hands a provider's events on as they come, and writes a file when the call is over."""

    def __init__(self, provider: Provider, folder: Path, *, secrets: Mapping[str, str], room: int) -> None:
        self.name = provider.name
        self._provider = provider
        self._folder = folder
        self._secrets = secrets
        self._room = room

    def open(self, call: Call) -> AbstractAsyncContextManager[AsyncIterator[CallEvent]]:
        return aclosing(self._events(call) if self._room > 0 else self._unrecorded(call))

    async def close(self) -> None:
        await self._provider.close()

    async def _unrecorded(self, call: Call) -> AsyncGenerator[CallEvent, None]:
        async with self._provider.open(call) as events:
            async for event in events:
                yield event

    async def _events(self, call: Call) -> AsyncGenerator[CallEvent, None]:
        recorded_at, began = datetime.now(UTC), time.monotonic()
        pieces: list[Piece] = []
        outcome: Answered | Failed | None = None
        try:
            async with self._provider.open(call) as events:
                async for event in events:
                    if isinstance(event, Text):
                        pieces.append(Piece(at_ms=_milliseconds_since(began), text=event.text))
                    else:
                        outcome = event
                    yield event
        finally:
            self._write(
                Recording(
                    recorded_at=recorded_at,
                    provider=self.name,
                    key=key_of(call),
                    call=call,
                    pieces=pieces,
                    ended_after_ms=_milliseconds_since(began),
                    answered=outcome if isinstance(outcome, Answered) else None,
                    failed=outcome if isinstance(outcome, Failed) else None,
                )
            )

    def _write(self, recording: Recording) -> None:
        try:
            text = self._without_keys(recording.model_dump_json(indent=2))
            if len(text) > MAX_CHARACTERS:
                raise _TooLargeError
            _write_new(self._folder / _file_name(recording), text)
        except (OSError, ValueError) as error:
            log.warning("call_not_recorded", request_id=recording.call.request_id, reason=_reason(error))
        self._room -= 1
        if self._room == 0:
            log.warning("recording_ended", folder=str(self._folder), files=MAX_FILES)

    def _without_keys(self, text: str) -> str:
        for name, secret in self._secrets.items():
            text = text.replace(secret, f"[{name} removed]")
        return _LOOKS_LIKE_A_KEY.sub("[key removed]", text)


def _secrets(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value.strip()
        for name, value in environ.items()
        if _HOLDS_A_SECRET.search(name.upper()) and len(value.strip()) >= _SHORTEST_SECRET
    }


def _reason(error: OSError | ValueError) -> str:
    # A serializer's message may quote what it could not write.
    return f"{type(error).__name__}: {error.strerror}" if isinstance(error, OSError) else type(error).__name__


def _milliseconds_since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 3)


def _file_name(recording: Recording) -> str:
    moment = recording.recorded_at.strftime("%Y%m%dT%H%M%S.%fZ")
    request_id = re.sub(r"[^A-Za-z0-9_-]", "_", recording.call.request_id)[:80]
    return f"{moment}-{request_id}-{recording.call.attempt}.json"


def _write_new(path: Path, text: str) -> None:
    """Under its own name only once it is whole, for a replay may be reading the folder."""
    part = path.with_suffix(".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(text)
    part.replace(path)
