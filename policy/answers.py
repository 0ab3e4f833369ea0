"""From a request to what a provider is asked, and from a provider's words to an answer that fits the request."""

import json
from dataclasses import dataclass
from typing import Any

from policy.comparison import COMPARISON_SCHEMA, comparison_messages, parse_comparison, parse_structured
from schemas.attempt import Problem
from schemas.request import LLMRequest, Message
from schemas.result import Answer
from schemas.vocabulary import Kind, Role


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a provider is asked: complete messages, and the schema that its answer must fit, if any."""

    messages: tuple[Message, ...]
    response_schema: dict[str, Any] | None = None
    schema_name: str = "answer"


def question_of(request: LLMRequest) -> Question:
    """The question of a request. Its `system_prompt`, if any, comes first."""
    if request.kind is Kind.COMPARISON:
        messages = comparison_messages(request.prompt or "", request.essay_a or "", request.essay_b or "")
        question = Question(messages=messages, response_schema=COMPARISON_SCHEMA, schema_name="comparison")
    elif request.response_format is not None:
        question = Question(
            messages=tuple(request.messages),
            response_schema=json.loads(request.response_format.json_schema),
            schema_name=request.response_format.name,
        )
    else:
        question = Question(messages=tuple(request.messages))
    system_prompt = request.parameters.system_prompt
    if system_prompt is None:
        return question
    return Question(
        messages=(Message(role=Role.SYSTEM, content=system_prompt), *question.messages),
        response_schema=question.response_schema,
        schema_name=question.schema_name,
    )


def accept_answer(
    request: LLMRequest, *, text: str, finish_reason: str, model: str, provider_request_id: str | None
) -> Answer | Problem:
    """The answer, or what is wrong with it. Nothing is repaired or made up."""
    answer = Answer(text=text, finish_reason=finish_reason, model=model, provider_request_id=provider_request_id)
    if request.kind is Kind.COMPARISON:
        comparison = parse_comparison(text)
        if isinstance(comparison, Problem):
            return comparison
        return answer.model_copy(update={"comparison": comparison, "structured": text})
    if request.response_format is not None:
        structured = parse_structured(text, json.loads(request.response_format.json_schema))
        if isinstance(structured, Problem):
            return structured
        return answer.model_copy(update={"structured": structured})
    return answer
