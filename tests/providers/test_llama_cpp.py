"""llama.cpp in process, with a real (tiny, random) model: answers, grammars, limits and wrong files."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from connectors.providers.base import Answered, Call, Provider, Text
from connectors.providers.checking import Checkable, Reached
from connectors.providers.errors import ProviderConfigurationError
from policy.comparison import COMPARISON_SCHEMA, comparison_messages, parse_comparison, parse_structured
from schemas.request import Message, Parameters
from schemas.result import Comparison
from schemas.vocabulary import FailureCategory as F
from schemas.vocabulary import Role
from tests.providers.calls import QUESTION, a_call, answer_of, events_of, failure_of, outcome_of
from tests.providers.local_models import CONTEXT_TOKENS, NO_GGUF, NO_LLAMA, YES, provider_of

llama_cpp = pytest.importorskip("llama_cpp", reason=NO_LLAMA)
pytest.importorskip("gguf", reason=NO_GGUF)

from tests.support.tiny_gguf import LONG_PIECE, write_tiny_gguf  # noqa: E402 - after the skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def model_path(folder: Path) -> Path:
    return write_tiny_gguf(folder / "tiny.gguf")


@pytest.fixture
async def provider(model_path: Path) -> AsyncIterator[Provider]:
    built = provider_of(model_path)
    yield built
    await built.close()


def limited(max_tokens: int, **more: Any) -> dict[str, Any]:
    return {"parameters": Parameters(max_tokens=max_tokens, **more)}


def a_comparison(**parameters: Any) -> Call:
    return a_call(
        messages=comparison_messages("Discuss.", "The first essay.", "The second essay."),
        response_schema=COMPARISON_SCHEMA,
        parameters=Parameters(**parameters),
    )


@pytest.mark.parametrize("seed", range(4))
async def test_a_comparison_by_grammar_validates(folder: Path, seed: int) -> None:
    """Whatever the weights, the grammar gives a verdict that fits all rules, lengths and scale included."""
    provider = provider_of(write_tiny_gguf(folder / f"seed-{seed}.gguf", seed=seed))
    answered = await answer_of(provider, a_comparison(seed=seed))
    await provider.close()
    assert isinstance(parse_comparison(answered.text), Comparison)


async def test_any_other_schema_binds_too(provider: Provider) -> None:
    """Objects within objects, references, arrays, whole numbers between bounds: the answer fits."""
    part = {"type": "object", "properties": {"n": {"type": "integer", "minimum": -3, "maximum": 3}}, "required": ["n"]}
    schema = {
        "type": "object",
        "properties": {
            "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}, "minItems": 2, "maxItems": 3},
            "name": {"type": "string", "maxLength": 20},
        },
        "required": ["parts", "name"],
        "additionalProperties": False,
        "$defs": {"part": part},
    }
    answered = await answer_of(provider, a_call(response_schema=schema, parameters=Parameters(seed=1)))
    assert parse_structured(answered.text, schema) == answered.text


async def test_pieces_come_as_they_are_made(provider: Provider) -> None:
    """A stream's pieces are the answer, and the tokens of both sides are counted."""
    call = a_call(stream=True, response_schema=YES, parameters=Parameters(temperature=0))
    *pieces, last = await events_of(provider, call)
    assert isinstance(last, Answered)
    assert "".join(piece.text for piece in pieces if isinstance(piece, Text)) == last.text
    assert len(pieces) > 1
    assert json.loads(last.text) == "yes"
    assert last.usage is not None
    assert last.usage.input_tokens > len(call.messages[0].content)
    assert last.usage.output_tokens == len(last.text)


async def test_without_streaming_there_are_no_pieces(provider: Provider) -> None:
    """The outcome holds it all."""
    events = await events_of(provider, a_call(response_schema=YES))
    assert [type(event) for event in events] == [Answered]


async def test_the_same_seed_gives_the_same_answer(provider: Provider) -> None:
    """And another one another."""
    texts = [(await answer_of(provider, a_comparison(seed=seed))).text for seed in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2]


async def test_the_start_of_the_last_prompt_is_not_read_again(provider: Provider) -> None:
    """What two prompts share is counted as cached, and changes nothing of the answer."""
    first, second = [await answer_of(provider, a_comparison(temperature=0)) for _ in range(2)]
    assert first.text == second.text
    assert first.usage is not None
    assert second.usage is not None
    assert first.usage.cached_input_tokens == 0
    assert second.usage.cached_input_tokens == second.usage.input_tokens - 1


async def test_the_limit_of_tokens_cuts_and_says_so(provider: Provider) -> None:
    """An answer that was not over is none."""
    failed = await failure_of(provider, a_call(**limited(5)))
    assert (failed.problem.category, failed.problem.retryable) == (F.TRUNCATED, False)
    assert failed.usage is not None
    assert failed.usage.output_tokens == 5


async def test_a_stop_string_ends_the_answer(provider: Provider) -> None:
    """It is left out, and the answer counts as whole."""
    events = await events_of(provider, a_call(stream=True, **limited(40, seed=3)))
    text = "".join(event.text for event in events if isinstance(event, Text))
    stop = text[10:14]
    answered = await answer_of(provider, a_call(**limited(40, seed=3, stop=[stop])))
    assert answered.text == text[: text.index(stop)]


async def test_an_answer_that_the_model_ends(folder: Path) -> None:
    """Its end token is the end; an empty answer is no answer."""
    provider = provider_of(write_tiny_gguf(folder / "ends.gguf", ends=True))
    failed = await failure_of(provider, a_call(**limited(5)))
    await provider.close()
    assert failed.problem.category is F.MALFORMED


async def test_a_long_piece_is_kept_whole(folder: Path) -> None:
    """A token of more bytes than the library's own buffer holds is not lost."""
    provider = provider_of(write_tiny_gguf(folder / "long.gguf", long_pieces=True))
    events = await events_of(provider, a_call(stream=True, **limited(2)))
    await provider.close()
    assert events[:-1] == [Text(LONG_PIECE), Text(LONG_PIECE)]


@pytest.mark.parametrize("more", [0, 5000])
async def test_a_prompt_that_does_not_fit(provider: Provider, more: int) -> None:
    """It fails before anything is computed, also where only the room for an answer is missing."""
    turn = Message(role=Role.USER, content="x" * (CONTEXT_TOKENS + more))
    failed = await failure_of(provider, a_call(messages=(turn,)))
    assert failed.problem.category is F.CONTEXT_LENGTH
    assert not failed.possibly_billed


async def test_a_context_that_fills_up(model_path: Path) -> None:
    """An answer for which there is no room left is cut, and no success."""
    provider = provider_of(model_path, context_tokens=256)
    failed = await failure_of(provider, a_call())
    await provider.close()
    assert failed.problem.category is F.CONTEXT_LENGTH
    assert failed.usage is not None
    assert failed.usage.total_tokens == 256


HOSTILE: list[dict[str, Any]] = [
    {"type": "string", "maxLength": 10**9},
    {"type": "string", "pattern": "^a{0,1000000}$"},
    {"type": "array", "items": {"type": "string"}, "minItems": 10**9},
]


@pytest.mark.parametrize("schema", HOSTILE)
async def test_a_schema_that_repeats_without_end(provider: Provider, schema: dict[str, Any]) -> None:
    """It does not bring the process down: what is too long is left to the check of the answer."""
    await outcome_of(provider, a_call(response_schema=schema, **limited(5)))
    await answer_of(provider, a_call(response_schema=YES))


@pytest.mark.parametrize("schema", [{"type": "strange"}, {"enum": []}, {"$ref": "https://example.org/schema"}])
async def test_a_schema_without_a_grammar(provider: Provider, schema: dict[str, Any]) -> None:
    """The call fails, and says which field is at fault; the next one is answered."""
    failed = await failure_of(provider, a_call(response_schema=schema))
    assert (failed.problem.category, failed.problem.field) == (F.INVALID_REQUEST, "response_format")
    await answer_of(provider, a_call(response_schema=YES))


async def test_a_template_that_refuses_the_messages(model_path: Path) -> None:
    """A model's own rules of conversation end in a category, and nothing of the prompt is quoted."""
    provider = provider_of(model_path, chat_template="{{ raise_exception('no: ' + messages[0].content) }}")
    failed = await failure_of(provider, a_call())
    await provider.close()
    assert (failed.problem.category, failed.problem.field) == (F.INVALID_REQUEST, "messages")
    assert "moon" not in failed.problem.message


async def test_the_model_s_template_is_used(model_path: Path) -> None:
    """How many tokens a prompt has depends on it: here, one for the beginning and one a character."""
    provider = provider_of(model_path, chat_template="{{ bos_token }}{{ messages[0].content }}")
    call = a_call(messages=(Message(role=Role.USER, content="Why?"),), response_schema=YES)
    answered = await answer_of(provider, call)
    await provider.close()
    assert answered.usage is not None
    # This kind of vocabulary puts a space before the first word, and has three bytes for it.
    assert answered.usage.input_tokens == 1 + 3 + len("Why?")


@pytest.fixture
def broken_path(folder: Path, model_path: Path) -> Path:
    path = folder / "broken.gguf"
    path.write_bytes(model_path.read_bytes()[:2000])
    return path


async def test_a_failure_within_llama_cpp(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends in a category, quotes nothing, and the next call begins anew."""

    def fail(*_: object) -> None:
        raise RuntimeError(f"llama_decode returned -3 for {QUESTION}")

    await answer_of(provider, a_call(response_schema=YES))
    with monkeypatch.context() as broken:
        broken.setattr(llama_cpp.Llama, "eval", fail)
        failed = await failure_of(provider, a_call())
    assert failed.problem.category is F.SERVER_ERROR
    assert QUESTION not in failed.problem.message
    answered = await answer_of(provider, a_call(response_schema=YES))
    assert answered.usage is not None
    assert answered.usage.cached_input_tokens == 0


async def test_a_file_that_is_cut_short(broken_path: Path) -> None:
    """A model that cannot be loaded is a failure of the calls, with the file named in the remedy."""
    provider = provider_of(broken_path)
    failed = await failure_of(provider, a_call())
    await provider.close()
    assert failed.problem.category is F.SERVER_ERROR
    assert "model_path" in (failed.problem.remedy or "")


@pytest.mark.parametrize(("content", "said"), [(None, "No such file"), (b"PK\x03\x04", "no file in GGUF format")])
def test_a_wrong_file_is_told_at_once(tmp_path: Path, content: bytes | None, said: str) -> None:
    """A provider without its model is not built."""
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ProviderConfigurationError, match=said):
        provider_of(path)


async def test_a_check_loads_nothing(provider: Provider) -> None:
    """The file is there: that is all there is to find out for nothing."""
    assert isinstance(provider, Checkable)
    assert await provider.check(timeout_seconds=1) == Reached()


async def test_loading_leaves_the_process_s_output_alone(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Other lanes' log lines are not sent to /dev/null meanwhile, and llama.cpp's chatter is kept out of them."""
    redirected: list[bool] = []
    original = llama_cpp._utils.suppress_stdout_stderr.__enter__

    def watched(self: Any) -> Any:
        redirected.append(not self.disable)
        return original(self)

    monkeypatch.setattr(llama_cpp._utils.suppress_stdout_stderr, "__enter__", watched)
    await answer_of(provider, a_call(response_schema=YES))
    assert redirected
    assert not any(redirected)
    assert "llama" not in "".join(capfd.readouterr())
