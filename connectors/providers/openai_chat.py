"""Chat completions by the official OpenAI SDK: the part that all servers which speak them have in common.

What is special about a server stands in its own file (`openai`, `azure_openai`, `openrouter`, `vllm`,
`openai_compatible`), as a `Dialect` and a function that makes its SDK client.

The SDK's own retries are off: a retry is the pipeline's, with its attempt number, its record and its price.

Requests go by the SDK's `post`, which leaves JSON as it is: pydantic objects that nobody checks cost twice the CPU of
the whole call, and six times that of a stream.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx2
from openai import AsyncOpenAI, AsyncStream, Omit, OpenAIError

from connectors.providers.answer_draft import AnswerDraft, ErrorBodyError
from connectors.providers.base import Call, CallEvent, Failed, Text
from connectors.providers.checking import Reached
from connectors.providers.errors import ProviderConfigurationError
from connectors.providers.http_client import new_http_client
from connectors.providers.http_failures import CallFacts
from connectors.providers.openai_answers import ChatAnswer
from connectors.providers.openai_errors import CredentialError, failed
from connectors.providers.openai_options import ChatOptions, TokenLimitParameter
from connectors.providers.openai_schema import Ask, structured
from connectors.providers.sdk_timeouts import sdk_timeout
from policy.catalogue import ProviderEntry
from schemas.attempt import Problem
from schemas.request import Message
from schemas.vocabulary import Role

_PATH = "/chat/completions"
_FAILURES = (
    OpenAIError,
    CredentialError,
    ErrorBodyError,
    httpx2.HTTPError,
    httpx2.StreamError,
    ValueError,
    RecursionError,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """How one server wants to be asked. `model_names`: what it calls the models of the catalogue, where it differs.

    `check_path`: what costs nothing to get, and shows that the key is good.
    """

    options: ChatOptions
    output_limit: TokenLimitParameter = "max_tokens"
    headers: Mapping[str, str | Omit] = field(default_factory=dict, repr=False)
    body: Mapping[str, Any] = field(default_factory=dict)
    body_with_schema: Mapping[str, Any] = field(default_factory=dict)
    model_names: Mapping[str, str] = field(default_factory=dict)
    check_path: str = "/models"
    lists_our_models: bool = True


class ChatCompletions:
    """One server that speaks chat completions. Safe for many calls at once.

    `connect` makes the SDK's client; `secret` gives what may never be quoted. A client that is passed in is shared, and
    stays open when this is closed.
    """

    def __init__(
        self,
        name: str,
        entry: ProviderEntry,
        connect: Callable[[httpx2.AsyncClient], AsyncOpenAI],
        *,
        dialect: Dialect,
        secret: Callable[[], str],
        http_client: httpx2.AsyncClient | None,
        and_close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.name = name
        self._and_close = and_close
        self._dialect = dialect
        self._secret = secret
        self._token_limit = dialect.options.token_limit_parameter or dialect.output_limit
        self._timeouts = entry.timeouts
        client = http_client or new_http_client()
        self._own_client = client if http_client is None else None
        try:
            self._sdk = connect(client)
        except (OpenAIError, httpx2.InvalidURL, ValueError) as error:
            raise ProviderConfigurationError(name, f"base_url {entry.base_url}: {error}") from error
        self._sdk.max_retries = 0
        # The SDK reads these from the environment (OPENAI_ORG_ID, OPENAI_PROJECT_ID, OPENAI_CUSTOM_HEADERS), and would
        # send them to servers that are not OpenAI's.
        self._sdk.organization = self._sdk.project = None
        self._sdk._custom_headers = {}  # noqa: SLF001 - there is no other way to take them out

    def open(self, call: Call) -> AbstractAsyncContextManager[AsyncIterator[CallEvent]]:
        return aclosing(self._events(call))

    async def close(self) -> None:
        if self._own_client is not None:
            await self._own_client.aclose()
        if self._and_close is not None:
            await self._and_close()

    async def check(self, *, timeout_seconds: float) -> Reached | Problem:
        """Asks for something that costs nothing: the list of models, for most servers."""
        nothing_yet = AnswerDraft(asked_model="", streamed=False)
        try:
            response = await self._sdk.get(
                self._dialect.check_path,
                cast_to=httpx2.Response,
                options={"timeout": timeout_seconds, "headers": self._dialect.headers},
            )
            listed = _model_ids(json.loads(response.content))
            return Reached(models=listed if self._dialect.lists_our_models else None)
        except _FAILURES as error:
            return failed(error, self._facts((), nothing_yet)).problem

    async def _events(self, call: Call) -> AsyncGenerator[CallEvent, None]:
        body = self._body(call)
        if isinstance(body, Problem):
            yield Failed(problem=body)
            return
        answer = ChatAnswer(asked_model=call.model, streamed=call.stream)
        try:
            if call.stream:
                async with aclosing(self._streamed(body, answer)) as pieces:
                    async for piece in pieces:
                        yield piece
            else:
                await self._whole(body, answer)
        except _FAILURES as error:
            if not answer.complete:
                yield failed(error, self._facts(call.messages, answer.draft))
                return
        yield answer.outcome()

    async def _streamed(self, body: dict[str, Any], answer: ChatAnswer) -> AsyncGenerator[Text, None]:
        stream = await self._sdk.post(
            _PATH,
            cast_to=object,
            body=body,
            options={"timeout": sdk_timeout(self._timeouts, streamed=True), "headers": self._dialect.headers},
            stream=True,
            stream_cls=AsyncStream[object],
        )
        # Not just `async for`: without the block an abandoned stream stays open until it is collected as garbage.
        async with stream:
            answer.draft.begin(stream.response.headers, now=datetime.now(UTC))
            async for chunk in stream:
                text = answer.add_chunk(chunk)
                if text:
                    yield Text(text)

    async def _whole(self, body: dict[str, Any], answer: ChatAnswer) -> None:
        response = await self._sdk.post(
            _PATH,
            cast_to=httpx2.Response,
            body=body,
            options={"timeout": sdk_timeout(self._timeouts, streamed=False), "headers": self._dialect.headers},
        )
        answer.draft.begin(response.headers, now=datetime.now(UTC))
        answer.add_completion(json.loads(response.content))

    def _body(self, call: Call) -> dict[str, Any] | Problem:
        """The body of the request. What the caller left open is not sent: models refuse what they do not know."""
        ask = self._ask(call)
        if isinstance(ask, Problem):
            return ask
        dialect, given = self._dialect, call.parameters
        body: dict[str, Any] = {
            "model": dialect.model_names.get(call.model, call.model),
            "messages": _messages(call.messages, ask.instruction),
            "temperature": given.temperature,
            "top_p": given.top_p,
            self._token_limit: given.max_tokens,
            "seed": given.seed,
            "stop": given.stop or None,
            "stream": call.stream or None,
            "stream_options": {"include_usage": True} if call.stream and dialect.options.stream_usage else None,
        }
        given_body = {name: value for name, value in body.items() if value is not None}
        by_schema = {**dialect.body_with_schema, **ask.body} if ask.body else {}
        return {**dialect.body, **dialect.options.body, **given_body, **by_schema}

    def _ask(self, call: Call) -> Ask | Problem:
        if call.response_schema is None:
            return Ask()
        means = self._dialect.options.structured_output_of(call.model)
        return structured(means, call.response_schema_name, call.response_schema)

    def _facts(self, messages: tuple[Message, ...], draft: AnswerDraft) -> CallFacts:
        texts = tuple(message.content for message in messages)
        return CallFacts(draft=draft, now=datetime.now(UTC), texts=texts, secret=self._secret())


def _model_ids(body: Any) -> tuple[str, ...] | None:
    listed = body.get("data") if isinstance(body, dict) else None
    if not isinstance(listed, list):
        return None
    return tuple(entry["id"] for entry in listed if isinstance(entry, dict) and isinstance(entry.get("id"), str))


def _messages(messages: tuple[Message, ...], instruction: str | None) -> list[dict[str, str]]:
    turns = [{"role": message.role.value, "content": message.content} for message in messages]
    if instruction is None:
        return turns
    # Many chat templates take one system message, and only at the start.
    if turns and turns[0]["role"] == Role.SYSTEM.value:
        return [{**turns[0], "content": f"{turns[0]['content']}\n\n{instruction}"}, *turns[1:]]
    return [{"role": Role.SYSTEM.value, "content": instruction}, *turns]
