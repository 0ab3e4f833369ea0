"""Options of a provider of type `google`. Needs no SDK, so that every process can check a providers.toml."""

from pydantic import BaseModel, ConfigDict, Field


class GoogleOptions(BaseModel):
    """Options of `[providers.<name>.options]`.

    `api_version`: `v1` is the stable one, which Google changes in no breaking way, and the SDK's own default. Preview
    models and names that end in `-latest` are served by `v1beta` alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    api_version: str = Field(default="v1", pattern=r"^[A-Za-z0-9]+$")
