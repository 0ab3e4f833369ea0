"""Calls of Anthropic's Messages API, by the official SDK.

The SDK's own retries are off (it would sleep up to 49 days on a Retry-After): a retry is the pipeline's, with its
attempt number, its record and its price. So are its spans, which could carry text; the pipeline has its own.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing
from datetime import UTC, datetime
from typing import Any

import httpx2
from anthropic import AnthropicError, AsyncAnthropic
from pydantic import BaseModel, SecretStr

from connectors.providers.answer_draft import AnswerDraft
from connectors.providers.anthropic import AnthropicOptions
from connectors.providers.anthropic_answers import AnthropicAnswer
from connectors.providers.anthropic_errors import EXCEPTIONS, failed
from connectors.providers.anthropic_schema import structured
from connectors.providers.base import Call, CallEvent, Text
from connectors.providers.checking import Reached
from connectors.providers.errors import ProviderConfigurationError
from connectors.providers.http_client import new_http_client
from connectors.providers.http_failures import CallFacts
from connectors.providers.sdk_timeouts import sdk_timeout
from policy.catalogue import ProviderEntry
from schemas.attempt import Problem
from schemas.request import Message
from schemas.vocabulary import Role

_REQUEST_ID_HEADER = "request-id"


class _Model(BaseModel):
    id: str


class _ModelList(BaseModel):
    data: list[_Model]


class Messages:
    """One server that speaks the Messages API. Safe for many calls at once.

    A client that is passed in is shared, and stays open when this is closed.
    """

    def __init__(
        self,
        name: str,
        entry: ProviderEntry,
        *,
        base_url: str,
        options: AnthropicOptions,
        key: SecretStr,
        http_client: httpx2.AsyncClient | None,
    ) -> None:
        self.name = name
        self._options = options
        self._key = key
        self._whole_timeout = sdk_timeout(entry.timeouts, streamed=False)
        self._stream_timeout = sdk_timeout(entry.timeouts, streamed=True)
        client = http_client or new_http_client()
        self._own_client = client if http_client is None else None
        try:
            self._sdk = AsyncAnthropic(
                api_key=key.get_secret_value(),
                base_url=base_url,
                max_retries=0,
                open_telemetry={"traces": False, "propagation": False},
                http_client=client,
            )
        except (AnthropicError, httpx2.InvalidURL) as error:
            raise ProviderConfigurationError(name, f"base_url {base_url}: {error}") from error
        # The SDK reads ANTHROPIC_CUSTOM_HEADERS, which may hold another key, and has no switch for it.
        self._sdk._custom_headers = {}  # noqa: SLF001 - no other way

    def open(self, call: Call) -> AbstractAsyncContextManager[AsyncIterator[CallEvent]]:
        return aclosing(self._events(call))

    async def close(self) -> None:
        if self._own_client is not None:
            await self._own_client.aclose()

    async def check(self, *, timeout_seconds: float) -> Reached | Problem:
        """Asks for the list of models, which costs nothing."""
        nothing_yet = AnswerDraft(asked_model="", streamed=False)
        try:
            response = await self._sdk.get(
                "/v1/models", cast_to=httpx2.Response, options={"params": {"limit": 1000}, "timeout": timeout_seconds}
            )
            listed = _ModelList.model_validate_json(response.content)
        except (AnthropicError, *EXCEPTIONS) as error:
            return failed(error, self._facts((), nothing_yet)).problem
        return Reached(models=tuple(model.id for model in listed.data))

    async def _events(self, call: Call) -> AsyncGenerator[CallEvent, None]:
        parameters = self._parameters(call)
        draft = AnswerDraft(asked_model=call.model, streamed=call.stream, request_id_header=_REQUEST_ID_HEADER)
        answer = AnthropicAnswer(draft, by_tool="tools" in parameters)
        try:
            if call.stream:
                async with aclosing(self._streamed(parameters, answer)) as pieces:
                    async for piece in pieces:
                        yield piece
            else:
                await self._whole(parameters, answer)
        except (AnthropicError, *EXCEPTIONS) as error:
            if draft.end is None:
                yield failed(error, self._facts(call.messages, draft))
                return
            # What goes wrong after the end (a reset instead of a goodbye) takes nothing away from the answer.
        yield answer.outcome()

    async def _streamed(self, parameters: dict[str, Any], answer: AnthropicAnswer) -> AsyncGenerator[Text, None]:
        stream = await self._sdk.messages.create(**parameters, stream=True, timeout=self._stream_timeout)
        async with stream:
            answer.draft.begin(stream.response.headers, now=datetime.now(UTC))
            async for event in stream:
                text = answer.add_event(event)
                if text:
                    yield Text(text)

    async def _whole(self, parameters: dict[str, Any], answer: AnthropicAnswer) -> None:
        response = await self._sdk.messages.with_raw_response.create(**parameters, timeout=self._whole_timeout)
        answer.draft.begin(response.headers, now=datetime.now(UTC))
        answer.add_message(await response.parse())

    def _parameters(self, call: Call) -> dict[str, Any]:
        """The body of the request. What the caller left open is not sent. There is no `seed` in this API."""
        given = call.parameters
        body: dict[str, Any] = {
            "model": call.model,
            "max_tokens": given.max_tokens or self._options.default_max_tokens,
            "messages": [
                {"role": message.role.value, "content": message.content}
                for message in call.messages
                if message.role is not Role.SYSTEM
            ],
        }
        system = [{"type": "text", "text": message.content} for message in call.messages if message.role is Role.SYSTEM]
        if system:
            body["system"] = system
        if given.stop:
            body["stop_sequences"] = given.stop
        # The SDK has no arguments for these any more; models that know them take them from the body.
        sampling = {"temperature": given.temperature, "top_p": given.top_p}
        body["extra_body"] = {name: value for name, value in sampling.items() if value is not None}
        if call.response_schema is not None:
            body |= structured(call.response_schema_name, call.response_schema, self._options.structured_output)
        return body

    def _facts(self, messages: tuple[Message, ...], draft: AnswerDraft) -> CallFacts:
        texts = tuple(message.content for message in messages)
        return CallFacts(draft=draft, now=datetime.now(UTC), texts=texts, secret=self._key.get_secret_value())
