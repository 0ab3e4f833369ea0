from typing import Any

import pytest

from connectors.providers.openai_schema import response_format
from policy.comparison import COMPARISON_SCHEMA


def sent(schema: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
    part = response_format("answer", schema)["json_schema"]
    return part["strict"], part["schema"]


def an_object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def test_a_comparison_goes_strict_without_what_strict_refuses() -> None:
    """Lengths are left out of what is sent, the scale of confidence and all descriptions stay."""
    strict, schema = sent(COMPARISON_SCHEMA)
    assert strict
    justification = schema["properties"]["justification"]
    assert justification == {
        "type": "string",
        "description": COMPARISON_SCHEMA["properties"]["justification"]["description"],
    }
    assert schema["properties"]["confidence"] == COMPARISON_SCHEMA["properties"]["confidence"]


def test_the_schema_that_was_given_is_left_alone() -> None:
    """What is sent is a copy: the answer is checked against all of the original."""
    sent(COMPARISON_SCHEMA)
    assert COMPARISON_SCHEMA["properties"]["justification"]["minLength"] == 50


def test_nested_parts_are_cleaned_too() -> None:
    """Lists, choices and definitions are gone through; a property may be called like a keyword."""
    text = {"type": "string", "maxLength": 5}
    schema = an_object(
        words={"type": "array", "items": text, "maxItems": 3},
        either={"anyOf": [text, {"type": "null"}]},
        default={"$ref": "#/$defs/one"},
    ) | {"$defs": {"one": an_object(minLength=text)}, "$schema": "https://json-schema.org/draft/2020-12/schema"}
    strict, cleaned = sent(schema)
    assert strict
    assert "maxLength" not in str(cleaned)
    assert "$schema" not in cleaned
    assert cleaned["properties"]["words"]["maxItems"] == 3
    assert set(cleaned["properties"]) == {"words", "either", "default"}
    assert set(cleaned["$defs"]["one"]["properties"]) == {"minLength"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
        an_object(a={"type": "string"}) | {"required": []},
        an_object(a={"type": "string"}) | {"additionalProperties": True},
        an_object(a={"allOf": [{"type": "string"}]}),
        an_object(a={"type": "object", "properties": {"b": {}}}),
        {"type": "array", "items": {"type": "string"}},
        {"anyOf": [an_object(), an_object()]},
        an_object(a=True),
        {"type": "object", "properties": 5},
    ],
)
def test_what_strict_cannot_express_goes_unchanged_as_guidance(schema: dict[str, Any]) -> None:
    """No rule of the user's is dropped to please strict mode."""
    assert sent(schema) == (False, schema)


@pytest.mark.parametrize(("name", "label"), [("my.schema:v1", "my_schema_v1"), ("x" * 100, "x" * 64)])
def test_names_are_fitted_to_what_openai_takes(name: str, label: str) -> None:
    """Letters, digits, underscores and dashes, at most 64."""
    assert response_format(name, COMPARISON_SCHEMA)["json_schema"]["name"] == label
