"""Options of a provider of type `anthropic`. Needs no SDK, so that every process can check a providers.toml."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

StructuredOutput = Literal["output_config", "tool"]


class AnthropicOptions(BaseModel):
    """Options of `[providers.<name>.options]`.

    `default_max_tokens`: the limit of output tokens for requests that set none; Anthropic's API insists on one.
    `structured_output`: how an answer by a JSON schema is asked for. `output_config` is the native way; `tool` forces
    a call of a tool with that schema, for models and gateways that do not know the former.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    default_max_tokens: int = Field(default=4096, ge=1)
    structured_output: StructuredOutput = "output_config"
