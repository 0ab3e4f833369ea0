"""JSON schemas as OpenAI's structured outputs take them.

Strict mode guarantees the form, and knows a part of JSON Schema only; anything else in a schema is an error 400.
Source: developers.openai.com/api/docs/guides/structured-outputs, "Supported schemas" (as of February 2026).
Whatever is sent, the answer is checked against the whole schema afterwards.
"""

import re
from typing import Any

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


def response_format(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The parameter `response_format`: strict where the schema allows it, else as guidance for the model."""
    try:
        strict, sent = True, _strict_root(schema)
    except (_NotStrictError, AttributeError, TypeError):  # the last two: a schema wrong in itself, theirs to refuse
        strict, sent = False, schema
    label = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:_MAX_NAME_CHARACTERS]
    return {"type": "json_schema", "json_schema": {"name": label, "strict": strict, "schema": sent}}


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
