"""Options of a provider of type `llama_cpp`. Needs no llama.cpp, so that every process can check a providers.toml."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class LlamaCppOptions(BaseModel):
    """Options of `[providers.<name>.options]`. A model is one file; another one is another provider."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_path: Path = Field(description="a file in GGUF format")
    context_tokens: int = Field(default=2048, ge=16, le=10_000_000, description="prompt and answer together")
    batch_tokens: int = Field(
        default=128,
        ge=1,
        le=4096,
        description="of the prompt, read between two looks at whether the call was cancelled",
    )
    threads: int | None = Field(default=None, ge=1, le=1024, description="absent: half of the cores")
    gpu_layers: int = Field(default=0, ge=-1, description="-1: all of them")
    max_waiting: int = Field(default=64, ge=0, le=2000, description="calls that wait for the one that runs")
    chat_template: str | None = Field(default=None, description="Jinja; absent: the model's own, else ChatML")
