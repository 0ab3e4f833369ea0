"""JSON schemas as servers of chat completions take them, each by the means that its model is declared to have.

    json_schema          response_format json_schema, strict where the schema allows it: OpenAI, Azure, OpenRouter
    full_json_schema     the same with the schema as it is: vLLM, llama.cpp's server, Ollama
    structured_outputs   vLLM's own parameter, since 0.12
    guided_json          the name it had before
    json_object          response_format json_object; the schema goes into the messages
    prompt               the schema goes into the messages, and nothing else is asked for
    none                 not at all: such a call is refused before it is made

OpenAI's strict mode guarantees the form, and knows a part of JSON Schema only; anything else in it is an error 400.
Source: developers.openai.com/api/docs/guides/structured-outputs, "Supported schemas" (as of February 2026).
Whatever is sent, the answer is checked against the whole schema afterwards.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from connectors.providers.openai_options import StructuredOutput
from policy.failures import problem
from schemas.attempt import Problem
from schemas.vocabulary import FailureCategory

_MAX_NAME_CHARACTERS = 64

_TAKEN = frozenset(
    {"type", "enum", "const", "anyOf", "$ref", "$defs", "definitions", "title", "description"}
    | {"properties", "required", "additionalProperties"}
    | {"items", "minItems", "maxItems"}
    | {"pattern", "multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
)
_LEFT_OUT = frozenset({"minLength", "maxLength", "format", "default", "examples", "$schema", "$comment"})
"""Refused or only partly known there, and safe to leave out: notes, and rules that our own check makes good."""
_HOLD_SCHEMAS_BY_NAME = frozenset({"properties", "$defs", "definitions"})


class _NotStrictError(Exception):
    """Strict mode cannot express the schema."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """What a request for JSON adds to the body, and to the messages."""

    body: dict[str, Any] = field(default_factory=dict)
    instruction: str | None = None


def structured(means: StructuredOutput, name: str, schema: dict[str, Any]) -> Ask | Problem:
    """How a model of these means is asked for an answer by this schema."""
    match means:
        case "json_schema":
            return Ask(body={"response_format": response_format(name, schema)})
        case "full_json_schema":
            return Ask(body={"response_format": _json_schema(name, schema, strict=True)})
        case "structured_outputs":
            return Ask(body={"structured_outputs": {"json": schema}})
        case "guided_json":
            return Ask(body={"guided_json": schema})
        case "json_object":
            return Ask(body={"response_format": {"type": "json_object"}}, instruction=_instruction(schema))
        case "prompt":
            return Ask(instruction=_instruction(schema))
        case "none":
            return problem(
                FailureCategory.INVALID_REQUEST,
                "the model is configured as one that cannot answer by a JSON schema",
                field="response_format",
                remedy="ask another model, or declare what it can in options.structured_output",
            )


def _instruction(schema: dict[str, Any]) -> str:
    return (
        "Answer with one JSON value and nothing else: no Markdown, no explanation. It must be valid by this JSON "
        f"Schema:\n{json.dumps(schema, ensure_ascii=False)}"
    )


def response_format(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The parameter `response_format`: strict where the schema allows it, else as guidance for the model."""
    try:
        strict, sent = True, _strict_root(schema)
    except (_NotStrictError, AttributeError, TypeError):  # the last two: a schema wrong in itself, theirs to refuse
        strict, sent = False, schema
    return _json_schema(name, sent, strict=strict)


def _json_schema(name: str, schema: dict[str, Any], *, strict: bool) -> dict[str, Any]:
    label = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:_MAX_NAME_CHARACTERS]
    return {"type": "json_schema", "json_schema": {"name": label, "strict": strict, "schema": schema}}


def _strict_root(schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("type") != "object" or "anyOf" in schema:
        raise _NotStrictError
    return _strict(schema)


def _strict(schema: Any) -> dict[str, Any]:
    if not isinstance(schema, dict) or not schema.keys() <= _TAKEN | _LEFT_OUT:
        raise _NotStrictError
    if schema.get("type") == "object" or "properties" in schema:
        names = schema.get("properties", {}).keys()
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != set(names):
            raise _NotStrictError
    return {keyword: _strict_part(keyword, value) for keyword, value in schema.items() if keyword in _TAKEN}


def _strict_part(keyword: str, value: Any) -> Any:
    if keyword in _HOLD_SCHEMAS_BY_NAME:
        return {name: _strict(part) for name, part in value.items()}
    if keyword == "items":
        return _strict(value)
    if keyword == "anyOf":
        return [_strict(part) for part in value]
    return value
