import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.comparison import (
    COMPARISON_SCHEMA,
    comparison_messages,
    confidence_to_unit_interval,
    parse_comparison,
    parse_structured,
    schema_problem,
)
from schemas.attempt import Problem
from schemas.result import Comparison
from schemas.vocabulary import FailureCategory, Role

REASON = "It argues from evidence and never loses sight of the question."
GOOD: dict[str, Any] = {"winner": "Essay B", "justification": REASON, "confidence": 3.5}

json_scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=600)
verdicts = st.fixed_dictionaries(
    {
        "winner": st.sampled_from(["Essay A", "Essay B"]) | json_scalars,
        "justification": st.text(min_size=40, max_size=520) | json_scalars,
        "confidence": st.floats(0, 6) | st.integers(0, 6) | json_scalars,
    },
    optional={"more": json_scalars},
)


def malformed(outcome: Comparison | str | Problem) -> str:
    assert isinstance(outcome, Problem)
    assert outcome.category is FailureCategory.MALFORMED
    return outcome.message


def test_a_good_verdict_is_read_as_it_is() -> None:
    """Winner, justification and confidence come out unchanged."""
    assert parse_comparison(json.dumps(GOOD)) == Comparison(winner="Essay B", justification=REASON, confidence=3.5)


def test_a_whole_number_is_a_confidence() -> None:
    """JSON knows one kind of number: 4 is 4.0."""
    verdict = parse_comparison(json.dumps(GOOD | {"confidence": 4}))
    assert isinstance(verdict, Comparison)
    assert verdict.confidence == 4.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("Essay A is better.", "not JSON"),
        (f"```json\n{json.dumps(GOOD)}\n```", "not JSON"),
        (f"{json.dumps(GOOD)} I am sure.", "not JSON"),
        (json.dumps(GOOD)[:-1], "not JSON"),
        ("[]", "dictionary"),
        ("null", "dictionary"),
        ('{"winner": "Essay A", ' + json.dumps(GOOD)[1:], "occurs twice"),
        (json.dumps(GOOD).replace("3.5", "NaN"), "NaN"),
        ("[" * 100_000, "nested"),
        ("1" * 10_000, "too long"),
        (json.dumps(GOOD | {"justification": "\ud83d" + REASON}), "half a character"),
    ],
)
def test_what_is_no_json_object_is_malformed(text: str, said: str) -> None:
    """Text around it, fences, ambiguity and hostile depth are refused, not seen through."""
    assert said in malformed(parse_comparison(text))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"winner": "A"}, "winner"),
        ({"winner": "essay a"}, "winner"),
        ({"winner": None}, "winner"),
        ({"justification": "Short."}, "justification"),
        ({"justification": "x" * 501}, "justification"),
        ({"confidence": 0.99}, "confidence"),
        ({"confidence": 5.01}, "confidence"),
        ({"confidence": "4"}, "confidence"),
        ({"confidence": True}, "confidence"),
        ({"certainty": 4}, "the comparison"),
    ],
)
def test_a_field_that_breaks_its_rule_is_named(change: dict[str, Any], named: str) -> None:
    """The problem says which field is at fault, and nothing is put right."""
    assert malformed(parse_comparison(json.dumps(GOOD | change))).startswith(named)


def test_a_missing_winner_is_not_made_up() -> None:
    """Without a winner there is no verdict."""
    without = {name: value for name, value in GOOD.items() if name != "winner"}
    assert malformed(parse_comparison(json.dumps(without))).startswith("winner")


def test_a_message_never_quotes_the_answer() -> None:
    """What the model wrote stays out of problems, in values and in names."""
    outcome = parse_comparison(json.dumps({"winner": "a secret", "a secret": 1, "confidence": "a secret"}))
    assert "secret" not in malformed(outcome)


@given(verdict=verdicts)
def test_the_schema_and_the_record_agree(verdict: dict[str, Any]) -> None:
    """What providers are asked for is what is accepted: the JSON schema and `Comparison` judge alike."""
    text = json.dumps(verdict)
    by_schema = parse_structured(text, COMPARISON_SCHEMA)
    assert isinstance(parse_comparison(text), Comparison) == isinstance(by_schema, str)


def test_every_field_of_the_schema_says_its_rule() -> None:
    """The scale and the length stand in the schema, where the model reads them."""
    said = {name: part["description"] for name, part in COMPARISON_SCHEMA["properties"].items()}
    assert "1.0" in said["confidence"]
    assert "5.0" in said["confidence"]
    assert "50 to 500" in said["justification"]


def test_the_question_holds_all_parts_in_order() -> None:
    """A system message, then one user message with the assignment, essay A and essay B."""
    system, user = comparison_messages("the assignment", "the first", "the second")
    assert (system.role, user.role) == (Role.SYSTEM, Role.USER)
    places = [user.content.index(part) for part in ("the assignment", "the first", "the second")]
    assert places == sorted(places)


@pytest.mark.parametrize(("confidence", "unit"), [(1.0, 0.0), (3.0, 0.5), (5.0, 1.0)])
def test_confidence_on_the_unit_interval(confidence: float, unit: float) -> None:
    """1 to 5 becomes 0 to 1, evenly."""
    assert confidence_to_unit_interval(confidence) == unit


SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "minLength": 2}}, "required": ["city"]}


def test_an_answer_that_fits_comes_back_unchanged() -> None:
    """The text itself is returned, with its own spacing."""
    text = '{ "city":  "Kraków" }'
    assert parse_structured(text, SCHEMA) == text


@pytest.mark.parametrize(
    ("text", "rule"),
    [('{"city": "X"}', "properties.city.minLength"), ("{}", "required"), ("[]", "type"), ("{", "JSON")],
)
def test_an_answer_that_does_not_fit_names_the_rule(text: str, rule: str) -> None:
    """The problem names the rule of the schema that is broken."""
    assert rule in malformed(parse_structured(text, SCHEMA))


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "objec"}, "type"),
        ({"pattern": "("}, "pattern"),
        ({"pattern": "(?=look)ahead"}, "pattern"),
        ({"$ref": "#/nowhere"}, "/nowhere"),
        ({"$ref": "http://127.0.0.1:9/schema"}, "not followed"),
        ({"$ref": "file:///etc/passwd"}, "not followed"),
    ],
)
def test_a_schema_that_cannot_be_used_is_the_request_s_fault(schema: dict[str, Any], said: str) -> None:
    """It is found before a call, and nothing outside the schema is ever fetched."""
    for found in (schema_problem(schema), parse_structured("{}", schema)):
        assert isinstance(found, Problem)
        assert found.category is FailureCategory.INVALID_REQUEST
        assert found.field == "response_format.json_schema"
        assert said in found.message


def test_a_good_schema_has_no_problem() -> None:
    """Our own schema, and one that refers to itself, can be used."""
    assert schema_problem(COMPARISON_SCHEMA) is None
    assert schema_problem({"items": {"$ref": "#"}}) is None


def test_a_hostile_schema_cannot_hold_up_the_worker() -> None:
    """A pattern that backtracks for ever elsewhere, and endless references, are answered at once."""
    malformed(parse_structured(json.dumps("a" * 5_000 + "b"), {"pattern": "^(a+)+$"}))
    assert parse_structured("{}", {"$ref": "#"}) == "{}"
    nested: dict[str, Any] = {"type": "string"}
    for _ in range(5_000):
        nested = {"not": nested}
    assert isinstance(schema_problem(nested), Problem)
