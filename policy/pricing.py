"""What a call cost, by a dated table of prices. A price that is not known is None, never zero."""

import re
import tomllib
from collections.abc import Mapping
from datetime import date

from pydantic import BaseModel, ConfigDict, Field

from schemas.attempt import Usage

_SNAPSHOT_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")
_PER = 1_000_000


class Price(BaseModel):
    """One model's price, in US dollars per million tokens, and where it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    input_usd: float = Field(ge=0)
    cached_input_usd: float | None = Field(default=None, ge=0, description="absent: as other input")
    output_usd: float = Field(ge=0)
    up_to_input_tokens: int | None = Field(default=None, gt=0, description="a longer prompt has another price")
    as_of: date
    source: str = Field(min_length=1)


Prices = Mapping[str, Price]
"""Prices by the model's name."""


def parse_prices(text: str) -> dict[str, Price]:
    """Reads a price file: one TOML table a model. Raises `ValueError`."""
    return {model: Price.model_validate(table) for model, table in tomllib.loads(text).items()}


def price_of(prices: Prices, model: str) -> Price | None:
    """The price of a model by its name, or of the model that a dated name is a snapshot of.

    `gpt-5-mini-2025-08-07` is priced as `gpt-5-mini`. Nothing else is taken for something similar.
    """
    return prices.get(model) or prices.get(_SNAPSHOT_DATE.sub("", model))


def cost_usd(prices: Prices, model: str, usage: Usage) -> float | None:
    """What these tokens cost. None: nobody knows. `cached_input_tokens` are a part of `input_tokens`."""
    price = price_of(prices, model)
    if price is None or (price.up_to_input_tokens is not None and usage.input_tokens > price.up_to_input_tokens):
        return None
    cached = min(usage.cached_input_tokens, usage.input_tokens)
    cached_usd = price.input_usd if price.cached_input_usd is None else price.cached_input_usd
    return (
        (usage.input_tokens - cached) * price.input_usd + cached * cached_usd + usage.output_tokens * price.output_usd
    ) / _PER
