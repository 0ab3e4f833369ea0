"""Calls of Google's Gemini API, by the official SDK.

The SDK's own retries, function calls and continuations are off: each would be a request, and a price, that nobody
sees. Its HTTP client is ours (`google_client` says why).
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx2
from google.genai import Client, errors, types
from pydantic import SecretStr

from connectors.providers.answer_draft import AnswerDraft, ErrorBodyError
from connectors.providers.base import Call, CallEvent, Text
from connectors.providers.checking import Reached
from connectors.providers.google import GoogleOptions
from connectors.providers.google_answers import GoogleAnswer
from connectors.providers.google_client import GoogleClient, showing_responses_to
from connectors.providers.google_errors import EXCEPTIONS, failed
from connectors.providers.http_client import new_http_client
from connectors.providers.http_failures import CallFacts, not_sendable
from policy.catalogue import ProviderEntry
from policy.failures import problem
from schemas.attempt import Problem
from schemas.request import Message
from schemas.vocabulary import FailureCategory, Role

_MODEL = re.compile(r"(?:(?:models|tunedModels)/)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_ROLES = {Role.USER: "user", Role.ASSISTANT: "model"}
_NOTHING_BY_ITSELF = types.GenerateContentConfig(
    automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True), automatic_continuation=False
)


class Gemini:
    """One server that speaks the Gemini API. Safe for many calls at once.

    A client that is passed in is shared, and stays open when this is closed.
    """

    def __init__(
        self,
        name: str,
        entry: ProviderEntry,
        *,
        base_url: str,
        options: GoogleOptions,
        key: SecretStr,
        http_client: httpx2.AsyncClient | None,
    ) -> None:
        self.name = name
        self._key = key
        client = http_client or new_http_client()
        self._own_client = client if http_client is None else None
        self._client = GoogleClient(client, entry.timeouts)
        self._sdk = Client(
            vertexai=False,  # else GOOGLE_GENAI_USE_VERTEXAI decides where prompts go
            api_key=key.get_secret_value(),
            http_options=types.HttpOptions(
                base_url=base_url,
                api_version=options.api_version,
                httpx_async_client=self._client,
                retry_options=types.HttpRetryOptions(attempts=1),
            ),
        )

    def open(self, call: Call) -> AbstractAsyncContextManager[AsyncIterator[CallEvent]]:
        return aclosing(self._events(call))

    async def close(self) -> None:
        self._sdk.close()
        await self._client.aclose()
        if self._own_client is not None:
            await self._own_client.aclose()

    async def check(self, *, timeout_seconds: float) -> Reached | Problem:
        """Asks for the list of models, which costs nothing."""
        nothing_yet = AnswerDraft(asked_model="", streamed=False)
        try:
            async with asyncio.timeout(timeout_seconds):
                with showing_responses_to(partial(_begin, nothing_yet)):
                    page = await self._sdk.aio.models.list(config={"page_size": 1000})
        except TimeoutError:
            return problem(FailureCategory.TIMEOUT_TOTAL, f"no answer within {timeout_seconds:g} s")
        except EXCEPTIONS as error:
            return failed(error, self._facts((), nothing_yet)).problem
        return Reached(models=tuple((model.name or "").removeprefix("models/") for model in page.page))

    async def _events(self, call: Call) -> AsyncGenerator[CallEvent, None]:
        unsendable = _unsendable(call)
        if unsendable is not None:
            yield unsendable
            return
        draft = AnswerDraft(asked_model=call.model, streamed=call.stream)
        answer = GoogleAnswer(draft)
        try:
            if call.stream:
                async with aclosing(self._streamed(call, answer)) as pieces:
                    async for piece in pieces:
                        yield piece
            else:
                await self._whole(call, answer)
        except EXCEPTIONS as error:
            if draft.end is None:
                yield failed(error, self._facts(call.messages, draft))
                return
            # What goes wrong after the end (a reset instead of a goodbye) takes nothing away from the answer.
        yield answer.outcome()

    async def _streamed(self, call: Call, answer: GoogleAnswer) -> AsyncGenerator[Text, None]:
        response: httpx2.Response | None = None

        def begin(came: httpx2.Response) -> None:
            nonlocal response
            response = came
            _begin(answer.draft, came)

        chunks = await self._sdk.aio.models.generate_content_stream(**_parameters(call))
        try:
            # The SDK sends the request when it is asked for the first chunk.
            with showing_responses_to(begin):
                chunk = await anext(chunks, None)
            while chunk is not None:
                text = answer.add(chunk)
                if text:
                    yield Text(text)
                chunk = await anext(chunks, None)
        except errors.UnknownApiResponseError:
            # The SDK takes the rest of a stream that ended inside an event for an event.
            if response is None or not response.is_closed:
                raise
        finally:
            if response is not None:
                await response.aclose()

    async def _whole(self, call: Call, answer: GoogleAnswer) -> None:
        bodies: list[httpx2.Response] = []

        def begin(came: httpx2.Response) -> None:
            bodies.append(came)
            _begin(answer.draft, came)

        with showing_responses_to(begin):
            response = await self._sdk.aio.models.generate_content(**_parameters(call))
        if not response.candidates and bodies:
            # The SDK drops an error that comes with status 200.
            body = bodies[0].json()
            if isinstance(body, dict) and body.get("error"):
                raise ErrorBodyError(body)
        answer.add(response)

    def _facts(self, messages: tuple[Message, ...], draft: AnswerDraft) -> CallFacts:
        texts = tuple(message.content for message in messages)
        return CallFacts(draft=draft, now=datetime.now(UTC), texts=texts, secret=self._key.get_secret_value())


def _parameters(call: Call) -> dict[str, Any]:
    """The arguments of a call. System messages, wherever they stand, are the instruction."""
    given = call.parameters
    system = [types.Part(text=message.content) for message in call.messages if message.role is Role.SYSTEM]
    settings = {
        "system_instruction": types.Content(parts=system) if system else None,
        "temperature": given.temperature,
        "top_p": given.top_p,
        "max_output_tokens": given.max_tokens,
        "stop_sequences": given.stop or None,
        "seed": given.seed,
        "response_mime_type": None if call.response_schema is None else "application/json",
        "response_json_schema": call.response_schema,
    }
    return {
        "model": call.model,
        # Not the SDK's objects, which it takes twice as long to check.
        "contents": [
            {"role": _ROLES[message.role], "parts": [{"text": message.content}]}
            for message in call.messages
            if message.role in _ROLES
        ],
        # A copy is not checked again: all of this was, on its way here.
        "config": _NOTHING_BY_ITSELF.model_copy(
            update={name: value for name, value in settings.items() if value is not None}
        ),
    }


def _unsendable(call: Call) -> CallEvent | None:
    # The model's name becomes part of the address: nothing else may get into it.
    if not _MODEL.fullmatch(call.model):
        return not_sendable("no Gemini model has such a name", field="model")
    if all(message.role is Role.SYSTEM for message in call.messages):
        return not_sendable("Gemini needs a message that is not the system's", field="messages")
    return None


def _begin(draft: AnswerDraft, response: httpx2.Response) -> None:
    if response.status_code == httpx2.codes.OK:
        draft.begin(response.headers, now=datetime.now(UTC))
