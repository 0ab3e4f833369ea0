"""A schema that is short to write and endless to check is refused at the door."""

from policy.comparison import COMPARISON_SCHEMA, schema_problem
from policy.schema_size import MAX_EXPANDED_PARTS, expanded_parts


def doubling(levels: int) -> dict[str, object]:
    definitions: dict[str, object] = {
        f"d{level}": {"anyOf": [{"$ref": f"#/$defs/d{level + 1}"}, {"$ref": f"#/$defs/d{level + 1}"}]}
        for level in range(levels)
    }
    definitions[f"d{levels}"] = {"type": "string"}
    return {"$defs": definitions, "$ref": "#/$defs/d0"}


def test_references_that_double_at_each_level_are_refused_with_the_reason() -> None:
    problem = schema_problem(doubling(22))
    assert problem is not None
    assert "written out" in problem.message
    assert problem.field == "response_format.json_schema"


def test_the_count_is_that_of_the_schema_written_out_and_stops_at_the_limit() -> None:
    assert expanded_parts(doubling(1)) < expanded_parts(doubling(3)) < MAX_EXPANDED_PARTS
    assert expanded_parts(doubling(60)) == MAX_EXPANDED_PARTS + 1


def test_a_schema_that_refers_to_itself_passes() -> None:
    tree = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}
    assert schema_problem(tree) is None


def test_ordinary_schemas_pass() -> None:
    assert schema_problem(COMPARISON_SCHEMA) is None
