"""JSON schemas as Anthropic takes them. Whatever is sent, the answer is checked against the whole schema afterwards.

Natively through `output_config`: the model cannot leave the form. It knows a part of JSON Schema; the SDK's own
`transform_schema` moves the rest into descriptions. What that cannot express is asked for by a forced tool, whose
schema may be any object's, and which the model follows without being held to it.
"""

import re
from typing import Any

from anthropic import transform_schema

from connectors.providers.anthropic import StructuredOutput

_MAX_NAME_CHARACTERS = 64


def structured(name: str, schema: dict[str, Any], means: StructuredOutput) -> dict[str, Any]:
    """The parameters of a request that ask for an answer by a schema."""
    if means == "output_config":
        try:
            return {"output_config": {"format": {"type": "json_schema", "schema": transform_schema(schema)}}}
        except (ValueError, AttributeError, TypeError):
            pass  # beyond what the native way can express
    label = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:_MAX_NAME_CHARACTERS]
    tool = {"name": label, "description": "Give the answer in this form.", "input_schema": schema}
    return {"tools": [tool], "tool_choice": {"type": "tool", "name": label, "disable_parallel_tool_use": True}}
