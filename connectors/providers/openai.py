"""OpenAI and every server that speaks its chat completions (vLLM, llama.cpp, Ollama ...), by the official SDK.

The SDK's own retries are off: a retry is the pipeline's, with its attempt number, its record and its price. Limits on
time are the caller's; the SDK's are set so that they only speak where the caller's cannot (connecting), or failed.
"""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2
from openai import AsyncOpenAI, OpenAIError
from pydantic import SecretStr

from connectors.providers.base import Call, CallEvent, Text
from connectors.providers.errors import ProviderConfigurationError
from connectors.providers.http_client import new_http_client
from connectors.providers.openai_answers import AnswerInProgress, ErrorBodyError
from connectors.providers.openai_errors import CallFacts, failed
from connectors.providers.openai_options import OpenAIOptions, TokenLimitParameter
from connectors.providers.openai_schema import response_format
from policy.catalogue import ProviderEntry, Timeouts

DEFAULT_BASE_URL = "https://api.openai.com/v1"
DEFAULT_KEY_VARIABLE = "OPENAI_API_KEY"
NO_KEY = SecretStr("no-key-needed")
"""For servers that ask for none: the SDK insists on some key."""


class OpenAIProvider:
    """One address that speaks chat completions. Safe for many calls at once.

    A client that is passed in is shared, and stays open when this is closed.
    """

    def __init__(
        self,
        name: str,
        entry: ProviderEntry,
        options: OpenAIOptions,
        *,
        http_client: httpx2.AsyncClient | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        base_url = entry.base_url or DEFAULT_BASE_URL
        is_openai = _is_openai(base_url)
        self.name = name
        self._timeouts = entry.timeouts
        self._token_limit: TokenLimitParameter = options.token_limit_parameter or (
            "max_completion_tokens" if is_openai else "max_tokens"
        )
        self._key = _key(name, entry, is_openai=is_openai, environ=environ)
        self._own_client = new_http_client() if http_client is None else None
        try:
            self._sdk = AsyncOpenAI(
                api_key=self._key.get_secret_value(),
                base_url=base_url,
                max_retries=0,
                http_client=http_client or self._own_client,
            )
        except (OpenAIError, httpx2.InvalidURL) as error:
            raise ProviderConfigurationError(name, f"base_url {base_url}: {error}") from error
        # Otherwise the SDK reads them from the environment, and sends them to servers that are not OpenAI's.
        self._sdk.organization = options.organization
        self._sdk.project = options.project

    def open(self, call: Call) -> AbstractAsyncContextManager[AsyncIterator[CallEvent]]:
        return aclosing(self._events(call))

    async def close(self) -> None:
        if self._own_client is not None:
            await self._own_client.aclose()

    async def _events(self, call: Call) -> AsyncGenerator[CallEvent, None]:
        answer = AnswerInProgress(asked_model=call.model, streamed=call.stream)
        try:
            if call.stream:
                async with aclosing(self._streamed(call, answer)) as pieces:
                    async for piece in pieces:
                        yield piece
            else:
                await self._whole(call, answer)
        except (OpenAIError, ErrorBodyError, httpx2.HTTPError, httpx2.StreamError, ValueError) as error:
            if not answer.complete:
                yield failed(error, self._facts(call, answer))
                return
        yield answer.outcome()

    async def _streamed(self, call: Call, answer: AnswerInProgress) -> AsyncGenerator[Text, None]:
        stream = await self._sdk.chat.completions.create(
            **self._parameters(call),
            stream=True,
            stream_options={"include_usage": True},
            timeout=_sdk_timeout(self._timeouts, streamed=True),
        )
        # Not just `async for`: without the block an abandoned stream stays open until it is collected as garbage.
        async with stream:
            headers = stream.response.headers
            answer.begin(request_id=headers.get("x-request-id"), content_type=headers.get("content-type", ""))
            async for chunk in stream:
                text = answer.add_chunk(chunk)
                if text:
                    yield Text(text)

    async def _whole(self, call: Call, answer: AnswerInProgress) -> None:
        response = await self._sdk.chat.completions.with_raw_response.create(
            **self._parameters(call), timeout=_sdk_timeout(self._timeouts, streamed=False)
        )
        answer.begin(
            request_id=response.headers.get("x-request-id"), content_type=response.headers.get("content-type", "")
        )
        answer.add_completion(response.parse())

    def _parameters(self, call: Call) -> dict[str, Any]:
        """The body of the request. What the caller left open is not sent: models refuse what they do not know."""
        given = call.parameters
        body: dict[str, Any] = {
            "model": call.model,
            "messages": [{"role": message.role.value, "content": message.content} for message in call.messages],
            "temperature": given.temperature,
            "top_p": given.top_p,
            self._token_limit: given.max_tokens,
            "seed": given.seed,
            "stop": given.stop or None,
        }
        if call.response_schema is not None:
            body["response_format"] = response_format(call.response_schema_name, call.response_schema)
        return {name: value for name, value in body.items() if value is not None}

    def _facts(self, call: Call, answer: AnswerInProgress) -> CallFacts:
        return CallFacts(
            answer=answer,
            streamed=call.stream,
            now=datetime.now(UTC),
            texts=tuple(message.content for message in call.messages),
            key=self._key.get_secret_value(),
        )


def _sdk_timeout(timeouts: Timeouts, *, streamed: bool) -> httpx2.Timeout:
    # httpx counts the time between two reads. Before the first token and between tokens it cannot tell apart, so the
    # longer limit holds here and the caller keeps the exact ones.
    read_seconds = max(timeouts.first_token_seconds, timeouts.stall_seconds) if streamed else timeouts.total_seconds
    return httpx2.Timeout(
        connect=timeouts.connect_seconds,
        pool=timeouts.connect_seconds,
        write=timeouts.stall_seconds,
        read=read_seconds,
    )


def _is_openai(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    return host == "openai.com" or host.endswith(".openai.com")


def _key(name: str, entry: ProviderEntry, *, is_openai: bool, environ: Mapping[str, str]) -> SecretStr:
    """The key from the environment. OPENAI_API_KEY is only ever sent elsewhere if the entry names it."""
    variable = entry.api_key_env or (DEFAULT_KEY_VARIABLE if is_openai else None)
    if variable is None:
        return NO_KEY
    key = environ.get(variable, "").strip()
    if not key:
        raise ProviderConfigurationError(
            name, f"the environment variable {variable} is not set; it must hold the API key"
        )
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ProviderConfigurationError(
            name, f"the environment variable {variable} holds characters that no API key has"
        )
    return SecretStr(key)
