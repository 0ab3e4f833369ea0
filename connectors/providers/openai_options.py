"""Options of a provider of type `openai`. Needs no SDK, so that every process can check a providers.toml."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

TokenLimitParameter = Literal["max_completion_tokens", "max_tokens"]


class OpenAIOptions(BaseModel):
    """Options of `[providers.<name>.options]`.

    `token_limit_parameter`: the name under which the server takes a limit of output tokens. OpenAI's reasoning models
    refuse `max_tokens`, some compatible servers know nothing else; absent, the name goes by the address.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    organization: str | None = None
    project: str | None = None
    token_limit_parameter: TokenLimitParameter | None = None
