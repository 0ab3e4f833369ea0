"""The behaviours of the fault server: all the ways in which a provider answers, fails, or does neither.

Each is told once, and put by a `Wire` into the words of an API.
"""

import json

from tests.support.fault_server import Case, Exchange
from tests.support.fault_wire import ANSWER, PIECES, Ending, Fault

__all__ = ["ANSWER", "CASES", "MISFIT", "PIECES", "VERDICT"]

VERDICT = json.dumps(
    {"winner": "Essay A", "justification": "It keeps to the question from its first line to its last.", "confidence": 4}
)
"""An answer that fits the comparison's schema."""
MISFIT = VERDICT.replace("Essay A", "Essay C")

CASES: dict[str, Case] = {}


def case(behaviour: Case) -> Case:
    """Registers a behaviour under its name, with dashes."""
    CASES[behaviour.__name__.replace("_", "-")] = behaviour
    return behaviour


def _ends(ending: Ending, *texts: str) -> Case:
    """An answer of these pieces, whole or streamed, with this end."""

    async def answer(exchange: Exchange) -> None:
        wire, asked = exchange.wire, exchange.asked
        if not exchange.streamed:
            await exchange.send(200, wire.whole("".join(texts), ending, asked))
            return
        await exchange.begin_stream()
        pieces = [wire.piece(text, asked) for text in texts]
        for event in (*wire.opening(asked), *pieces, *wire.ending(ending, asked), *wire.closing()):
            await exchange.raw(event)
        await exchange.end_stream()

    return answer


CASES |= {
    "good": _ends(Ending.WHOLE, *PIECES),
    "structured": _ends(Ending.WHOLE, VERDICT[:20], VERDICT[20:]),
    "structured-misfit": _ends(Ending.WHOLE, MISFIT[:20], MISFIT[20:]),
    "cut-at-the-limit": _ends(Ending.AT_THE_LIMIT, *PIECES),
    "filtered": _ends(Ending.FILTERED, *PIECES),
    "refused": _ends(Ending.REFUSED),
    "unknown-end": _ends(Ending.UNHEARD_OF, *PIECES),
    "empty-answer": _ends(Ending.WHOLE, ""),
    "half-a-character": _ends(Ending.WHOLE, "\ud83d"),
}


@case
async def no_content(exchange: Exchange) -> None:
    wire, asked = exchange.wire, exchange.asked
    if not exchange.streamed:
        await exchange.send(200, wire.whole(None, Ending.WHOLE, asked))
        return
    await exchange.begin_stream()
    for event in (*wire.opening(asked), *wire.ending(Ending.WHOLE, asked), *wire.closing()):
        await exchange.raw(event)
    await exchange.end_stream()


@case
async def good_then_reset(exchange: Exchange) -> None:
    await exchange.tell()
    for event in exchange.wire.ending(Ending.WHOLE, exchange.asked):
        await exchange.raw(event)
    exchange.reset()


@case
async def list_of_models(exchange: Exchange) -> None:
    await exchange.send(200, exchange.wire.models())


@case
async def reset_before_headers(exchange: Exchange) -> None:
    exchange.reset()


@case
async def goodbye_before_headers(exchange: Exchange) -> None:
    exchange.writer.close()


@case
async def reset_mid_stream(exchange: Exchange) -> None:
    await exchange.tell()
    exchange.reset()


@case
async def goodbye_mid_answer(exchange: Exchange) -> None:
    if exchange.streamed:
        await exchange.tell()
    else:
        body = exchange.wire.whole(ANSWER, Ending.WHOLE, exchange.asked)
        await exchange.send(200, body[:40], content_length=str(len(body)))


@case
async def silence(exchange: Exchange) -> None:
    await exchange.silence()


@case
async def no_first_token(exchange: Exchange) -> None:
    await exchange.begin_stream()
    await exchange.silence()


@case
async def keep_alive_without_token(exchange: Exchange) -> None:
    await exchange.begin_stream()
    await exchange.keep_alive()


@case
async def stall(exchange: Exchange) -> None:
    await exchange.tell()
    await exchange.silence()


@case
async def keep_alive_after_tokens(exchange: Exchange) -> None:
    await exchange.tell()
    await exchange.keep_alive()


@case
async def clean_end_without_end(exchange: Exchange) -> None:
    await exchange.tell()
    await exchange.end_stream()


@case
async def cut_inside_event(exchange: Exchange) -> None:
    await exchange.tell()
    await exchange.raw(exchange.wire.piece("never whole", exchange.asked)[:60])
    await exchange.end_stream()


@case
async def bad_chunk(exchange: Exchange) -> None:
    await exchange.tell()
    await exchange.raw(exchange.wire.event('{"choices": ['))
    await exchange.silence()


@case
async def chunk_of_another_kind(exchange: Exchange) -> None:
    await exchange.tell()
    await exchange.raw(exchange.wire.event('"just text"'))
    await exchange.silence()


@case
async def error_event(exchange: Exchange) -> None:
    await exchange.tell()
    await exchange.raw(exchange.wire.error_event(Fault.SERVER_ERROR))
    await exchange.silence()


@case
async def rate_limit_event(exchange: Exchange) -> None:
    await exchange.tell()
    await exchange.raw(exchange.wire.error_event(Fault.RATE_LIMIT))
    await exchange.silence()


@case
async def html(exchange: Exchange) -> None:
    await exchange.send(200, "<html>Please log in</html>", content_type="text/html")


@case
async def gateway_page(exchange: Exchange) -> None:
    await exchange.send(502, "<html>Bad gateway</html>", content_type="text/html")


@case
async def not_a_stream(exchange: Exchange) -> None:
    await exchange.send(200, exchange.wire.whole(ANSWER, Ending.WHOLE, exchange.asked))


@case
async def broken_json(exchange: Exchange) -> None:
    await exchange.send(200, '{"choices": [')


@case
async def empty_object(exchange: Exchange) -> None:
    if exchange.streamed:
        await exchange.begin_stream()
        await exchange.raw(exchange.wire.event("{}"))
        await exchange.end_stream()
    else:
        await exchange.send(200, "{}")


@case
async def error_with_200(exchange: Exchange) -> None:
    if exchange.streamed:
        await exchange.begin_stream()
        await exchange.raw(exchange.wire.error_event(Fault.OVERLOADED))
        await exchange.silence()
    else:
        await exchange.send(200, exchange.wire.error(Fault.OVERLOADED, None, None)[1])


@case
async def redirect(exchange: Exchange) -> None:
    await exchange.send(307, "", location="http://127.0.0.1:9/elsewhere")


@case
async def echo_prompt(exchange: Exchange) -> None:
    await exchange.fail(Fault.PLAIN, message=f"Bad input: {exchange.asked.prompt}")


@case
async def echo_key(exchange: Exchange) -> None:
    await exchange.fail(Fault.PLAIN, status=403, message=f"Not with {exchange.key}")


def _error(fault: Fault, *, status: int | None = None, message: str | None = None, **headers: str) -> Case:
    async def answer(exchange: Exchange) -> None:
        await exchange.fail(fault, status=status, message=message, **headers)

    return answer


CASES |= {
    "context-length": _error(Fault.CONTEXT_LENGTH),
    "context-length-of-vllm": _error(Fault.PLAIN, message="This model's maximum context length is 4096 tokens."),
    "prompt-filtered": _error(Fault.PROMPT_FILTERED),
    "quota": _error(Fault.QUOTA),
    "unknown-model": _error(Fault.UNKNOWN_MODEL),
    "rate-limited": _error(Fault.RATE_LIMIT),
    "rate-limited-seconds": _error(Fault.RATE_LIMIT, retry_after="7"),
    "rate-limited-date": _error(Fault.RATE_LIMIT, retry_after="Fri, 31 Dec 2100 23:59:59 GMT"),
    **{f"status-{status}": _error(Fault.PLAIN, status=status) for status in (400, 401, 402, 403, 404, 408, 409)},
    **{f"status-{status}": _error(Fault.PLAIN, status=status) for status in (413, 418, 422)},
    **{f"status-{status}": _error(Fault.PLAIN, status=status) for status in (500, 502, 503, 504, 529)},
}
