"""The behaviours of the fault server: all the ways in which a provider answers, fails, or does neither."""

import json
from typing import Any

from tests.support.fault_server import Case, Exchange

ANSWER = "Two words."
PIECES = ("Two ", "words.")
USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 3,
    "total_tokens": 14,
    "prompt_tokens_details": {"cached_tokens": 4},
}

CASES: dict[str, Case] = {}


def case(behaviour: Case) -> Case:
    """Registers a behaviour under its name, with dashes."""
    CASES[behaviour.__name__.replace("_", "-")] = behaviour
    return behaviour


def completion(*, finish_reason: str = "stop", **message: Any) -> str:
    """The body of a chat completion."""
    message = {"role": "assistant", "content": ANSWER, "refusal": None, **message}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": None}
    return json.dumps(
        {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "served-model", "choices": [choice]}
        | {"usage": USAGE}
    )


def chunk(finish_reason: str | None = None, **delta: Any) -> str:
    """The data of one event of a stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
    return json.dumps(
        {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "served-model"}
        | {"choices": [choice], "usage": None}
    )


def usage_chunk() -> str:
    """The last data of a stream that was asked for usage."""
    return json.dumps(json.loads(chunk()) | {"choices": [], "usage": USAGE})


async def tell(exchange: Exchange) -> None:
    """The pieces of the answer, without its end."""
    await exchange.begin_stream()
    await exchange.event(chunk(role="assistant", content="", refusal=None))
    for piece in PIECES:
        await exchange.event(chunk(content=piece))


async def finish(exchange: Exchange, finish_reason: str, **message: Any) -> None:
    """A whole answer, in one piece or streamed, with this end."""
    if not exchange.streamed:
        await exchange.send(200, completion(finish_reason=finish_reason, **message))
        return
    if message:
        await exchange.begin_stream()
        await exchange.event(chunk(role="assistant", **message))
    else:
        await tell(exchange)
    await exchange.event(chunk(finish_reason=finish_reason))
    await exchange.event(usage_chunk())
    await exchange.event("[DONE]")
    await exchange.end_stream()


def _ends(finish_reason: str, **message: Any) -> Case:
    async def answer(exchange: Exchange) -> None:
        await finish(exchange, finish_reason, **message)

    return answer


CASES |= {
    "good": _ends("stop"),
    "cut-at-the-limit": _ends("length"),
    "filtered": _ends("content_filter"),
    "unknown-end": _ends("tool_calls"),
    "refused": _ends("stop", content=None, refusal="I would rather not."),
    "half-a-character": _ends("stop", content="\ud83d"),
}


@case
async def good_then_reset(exchange: Exchange) -> None:
    await tell(exchange)
    await exchange.event(chunk(finish_reason="stop"))
    exchange.reset()


@case
async def reset_before_headers(exchange: Exchange) -> None:
    exchange.reset()


@case
async def goodbye_before_headers(exchange: Exchange) -> None:
    exchange.writer.close()


@case
async def reset_mid_stream(exchange: Exchange) -> None:
    await tell(exchange)
    exchange.reset()


@case
async def goodbye_mid_answer(exchange: Exchange) -> None:
    if exchange.streamed:
        await tell(exchange)
    else:
        await exchange.send(200, completion()[:40], content_length=str(len(completion())))


@case
async def silence(exchange: Exchange) -> None:
    await exchange.silence()


@case
async def no_first_token(exchange: Exchange) -> None:
    await exchange.begin_stream()
    await exchange.silence()


@case
async def stall(exchange: Exchange) -> None:
    await tell(exchange)
    await exchange.silence()


@case
async def clean_end_without_end(exchange: Exchange) -> None:
    await tell(exchange)
    await exchange.end_stream()


@case
async def cut_inside_event(exchange: Exchange) -> None:
    await tell(exchange)
    await exchange.raw(f"data: {chunk(content='never whole')[:30]}")
    await exchange.end_stream()


@case
async def bad_chunk(exchange: Exchange) -> None:
    await tell(exchange)
    await exchange.event('{"choices": [')
    await exchange.silence()


@case
async def chunk_of_another_kind(exchange: Exchange) -> None:
    await tell(exchange)
    await exchange.event('"just text"')
    await exchange.silence()


@case
async def error_event(exchange: Exchange) -> None:
    await tell(exchange)
    await exchange.event(json.dumps({"error": {"message": "The server had an error", "type": "server_error"}}))
    await exchange.silence()


@case
async def rate_limit_event(exchange: Exchange) -> None:
    await tell(exchange)
    await exchange.event(json.dumps({"error": {"message": "slow down", "code": 429}}))
    await exchange.silence()


@case
async def html(exchange: Exchange) -> None:
    await exchange.send(200, "<html>Please log in</html>", content_type="text/html")


@case
async def not_a_stream(exchange: Exchange) -> None:
    await exchange.send(200, completion())


@case
async def broken_json(exchange: Exchange) -> None:
    await exchange.send(200, '{"choices": [')


@case
async def empty_object(exchange: Exchange) -> None:
    if exchange.streamed:
        await exchange.begin_stream()
        await exchange.event("{}")
        await exchange.silence()
    await exchange.send(200, "{}")


@case
async def error_with_200(exchange: Exchange) -> None:
    body = json.dumps({"error": {"message": "no capacity", "type": "overloaded_error"}})
    if exchange.streamed:
        await exchange.begin_stream()
        await exchange.event(body)
        await exchange.silence()
    await exchange.send(200, body)


@case
async def redirect(exchange: Exchange) -> None:
    await exchange.send(307, "", location="http://127.0.0.1:9/elsewhere")


@case
async def echo_prompt(exchange: Exchange) -> None:
    await exchange.error(400, f"Bad input: {exchange.body['messages'][-1]['content']}")


@case
async def echo_key(exchange: Exchange) -> None:
    await exchange.error(403, f"Not with {exchange.headers['authorization']}")


def _error(status: int, message: str = "As the status says", *, code: str | None = None, **headers: str) -> Case:
    async def answer(exchange: Exchange) -> None:
        await exchange.error(status, message, code=code, **headers)

    return answer


CASES |= {
    "context-length": _error(400, "Too long", code="context_length_exceeded"),
    "context-length-of-vllm": _error(400, "This model's maximum context length is 4096 tokens.", code="400"),
    "prompt-filtered": _error(400, "The prompt was flagged", code="content_filter"),
    "quota": _error(429, "You exceeded your current quota", code="insufficient_quota"),
    "rate-limited": _error(429, "Slow down", code="rate_limit_exceeded"),
    "rate-limited-seconds": _error(429, "Slow down", retry_after="7"),
    "rate-limited-date": _error(429, "Slow down", retry_after="Fri, 31 Dec 2100 23:59:59 GMT"),
    **{f"status-{status}": _error(status) for status in (400, 401, 402, 403, 404, 408, 409, 413, 418, 422)},
    **{f"status-{status}": _error(status) for status in (500, 502, 503, 504, 529)},
}
