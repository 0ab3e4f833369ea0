"""Grammars for llama.cpp from JSON schemas, by its own converter, with what that lacks.

The converter knows no bounds of numbers and lets control characters and halves of characters into strings, which are
no JSON. And what a schema repeats too often it nests so deep that llama.cpp's parser would take the process down.
The answer is checked against the whole schema afterwards, as everybody's.
"""

import json
import math
import re
from typing import Any, TypeGuard

from llama_cpp.llama_grammar import json_schema_to_gbnf

MAX_REPETITIONS = 1_000
"""Longer strings and arrays are not bounded by the grammar."""
MAX_NUMBERS = 1_000
"""Numbers between two bounds are spelt out: integers each, others in tenths."""
MAX_CHARACTERS = 1_000_000
"""llama.cpp parses some two million a second, and cannot be stopped meanwhile."""

_CHARACTER = (
    r'char ::= [^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | '
    r'"u" ([0-9A-Ca-cE-Fe-f] [0-9A-Fa-f] [0-9A-Fa-f] [0-9A-Fa-f] | [Dd] [0-7] [0-9A-Fa-f] [0-9A-Fa-f]))'
)
_MANY = re.compile(r"\d{4,}")
_HOLD_SCHEMAS_BY_NAME = frozenset({"properties", "$defs", "definitions"})
_HOLD_DATA = frozenset({"const", "enum", "default", "examples", "required"})


class GrammarError(Exception):
    """No grammar can be made of the schema."""


def grammar(schema: dict[str, Any]) -> str:
    """The grammar, in llama.cpp's notation. Raises `GrammarError`."""
    try:
        text: str = json_schema_to_gbnf(json.dumps(_narrowed(schema)))
    except (AssertionError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise GrammarError("llama.cpp can make no grammar of it") from error
    if len(text) > MAX_CHARACTERS:
        raise GrammarError("the grammar would be too large")
    return re.sub(r"^char ::= .*$", lambda _: _CHARACTER, text, flags=re.MULTILINE)


def _narrowed(schema: Any) -> Any:
    """The schema in the words that the converter knows."""
    if isinstance(schema, list):
        return [_narrowed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        keyword: _narrowed_part(keyword, value) for keyword, value in schema.items() if not _repeats(keyword, value)
    }
    numbers = _numbers_between(schema)
    return {"enum": numbers} if numbers else kept


def _narrowed_part(keyword: str, value: Any) -> Any:
    if keyword in _HOLD_DATA:
        return value
    if keyword in _HOLD_SCHEMAS_BY_NAME and isinstance(value, dict):
        return {name: _narrowed(part) for name, part in value.items()}
    return _narrowed(value)


def _repeats(keyword: str, value: Any) -> bool:
    """Whether the grammar would have to repeat too often."""
    if keyword in {"minLength", "maxLength", "minItems", "maxItems"}:
        return not isinstance(value, int) or value > MAX_REPETITIONS
    return keyword == "pattern" and (not isinstance(value, str) or bool(_MANY.search(value)))


def _numbers_between(schema: dict[str, Any]) -> list[float] | list[int]:
    low, high = schema.get("minimum"), schema.get("maximum")
    if not _is_number(low) or not _is_number(high) or {"enum", "const", "multipleOf"} & schema.keys():
        return []
    if schema.get("type") not in ("integer", "number"):
        return []
    steps = 1 if schema["type"] == "integer" else 10
    first, last = math.ceil(low * steps), math.floor(high * steps)
    if last - first >= MAX_NUMBERS:
        return []
    return [number if steps == 1 else number / steps for number in range(first, last + 1)]


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
