"""One call of a local model, from its messages to its outcome. Blocks; runs in the model's thread."""

from collections.abc import Callable

from connectors.providers.answer_draft import CONTEXT_FULL, CUT_AT_THE_LIMIT, FINISHED, BadEnd
from connectors.providers.base import Answered, Call, Failed, Outcome
from connectors.providers.llama_cpp_grammar import GrammarError, grammar
from connectors.providers.llama_cpp_model import (
    GrammarRefusedError,
    LocalModel,
    ModelLoadError,
    PromptError,
    StoppedError,
)
from connectors.providers.llama_cpp_text import TokenText
from policy.failures import problem
from schemas.attempt import Usage
from schemas.vocabulary import FailureCategory as F


def answer(
    model: LocalModel, call: Call, *, tell: Callable[[str], None], stopped: Callable[[], bool]
) -> Outcome | None:
    """Tells each piece of text as it comes, and returns how the call ended; None: it was stopped.

    Messages of the library stay out of ours: some quote the prompt.
    """
    try:
        rules = None if call.response_schema is None else grammar(call.response_schema)
        return _answer(model, call, rules, tell=tell, stopped=stopped)
    except StoppedError:
        return None
    except (GrammarError, GrammarRefusedError):
        return _refused(F.INVALID_REQUEST, "llama.cpp can make no grammar of the JSON schema", field="response_format")
    except PromptError:
        return _refused(F.INVALID_REQUEST, "the model's chat template does not take these messages", field="messages")
    except ModelLoadError:
        return _refused(F.SERVER_ERROR, "the model could not be loaded", remedy="see the worker's log, and model_path")
    except UnicodeDecodeError:
        return _refused(F.MALFORMED, "the model's answer is no UTF-8")
    except (RuntimeError, ValueError, MemoryError) as error:
        model.forget()
        return _refused(F.SERVER_ERROR, f"llama.cpp failed ({type(error).__name__})")


def _answer(
    model: LocalModel, call: Call, rules: str | None, *, tell: Callable[[str], None], stopped: Callable[[], bool]
) -> Outcome:
    prompt = model.prompt(call.messages)
    room = model.context_tokens - len(prompt)
    if room < 1:
        what = f"{len(prompt)} tokens do not fit into a context of {model.context_tokens}"
        return _refused(F.CONTEXT_LENGTH, what, remedy="shorten the messages, or raise options.context_tokens")
    saved = model.read(prompt, stopped=stopped)
    wanted = call.parameters.max_tokens
    limit = room if wanted is None else min(wanted, room)
    text, parts, count = TokenText(call.parameters.stop), [], 0
    bad_end: BadEnd | None = CUT_AT_THE_LIMIT if wanted == limit else CONTEXT_FULL
    for piece in model.tokens(prompt, call, grammar=rules, stopped=stopped):
        count += piece is not None
        parts.append(text.end() if piece is None else text.add(piece))
        if parts[-1]:
            tell(parts[-1])
        if piece is None or text.stopped:
            bad_end = None
            break
        if count >= limit:
            break
    usage = Usage(input_tokens=len(prompt), output_tokens=count, cached_input_tokens=saved)
    if bad_end is not None:
        fault = problem(bad_end.category, bad_end.message, retryable=False, remedy=bad_end.remedy)
        return Failed(problem=fault, usage=usage)
    if not any(parts):
        return Failed(problem=problem(F.MALFORMED, "no answer in text: the model ended it at once"), usage=usage)
    return Answered(text="".join(parts), finish_reason=FINISHED, model=call.model, usage=usage)


def _refused(category: F, message: str, *, field: str | None = None, remedy: str | None = None) -> Failed:
    return Failed(problem=problem(category, message, field=field, remedy=remedy))
