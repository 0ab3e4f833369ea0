"""The options that all providers which speak OpenAI's chat completions share. Needs no SDK."""

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from policy.rules import ModelPattern

TokenLimitParameter = Literal["max_completion_tokens", "max_tokens"]

_OF_THE_CALL = frozenset({"model", "messages", "stream", "stream_options", "response_format", "n", "tools"})
"""`n` and `tools` would bring answers that nobody reads."""

StructuredOutput = Literal[
    "json_schema", "full_json_schema", "structured_outputs", "guided_json", "json_object", "prompt", "none"
]
"""How a model is asked for JSON by a schema; `openai_schema.structured` says what each sends."""


class ChatOptions(BaseModel):
    """Options of `[providers.<name>.options]`.

    `token_limit_parameter`: the name under which the server takes a limit of output tokens.
    `structured_output`: what a model can do, by its name or the start of one and a `*`; the first that fits counts.
    `stream_usage`: whether the server takes `stream_options`, by which a stream says what it cost.
    `body`: further parameters, sent with every call; what a request sets goes before them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    default_structured_output: ClassVar[StructuredOutput] = "json_schema"
    """What the models of a type can do that its options say nothing of."""

    token_limit_parameter: TokenLimitParameter | None = None
    structured_output: dict[ModelPattern, StructuredOutput] = Field(default_factory=dict)
    stream_usage: bool = True
    body: dict[str, Any] = Field(default_factory=dict)

    @field_validator("body")
    @classmethod
    def _leaves_the_call_alone(cls, body: dict[str, Any]) -> dict[str, Any]:
        ours = sorted(_OF_THE_CALL & body.keys())
        if ours:
            raise ValueError(f"may not hold {', '.join(ours)}: that is said by each request")
        return body

    def structured_output_of(self, model: str) -> StructuredOutput:
        """How this model is asked for JSON by a schema."""
        for pattern, means in self.structured_output.items():
            if model.startswith(pattern[:-1]) if pattern.endswith("*") else model == pattern:
                return means
        return self.default_structured_output
