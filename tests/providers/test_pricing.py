from pathlib import Path

import pytest

from connectors.providers.pricing_file import PriceFileError, load_prices
from policy.pricing import cost_usd, parse_prices, price_of
from schemas.attempt import Usage

PRICES = parse_prices(
    """
[big]
input_usd = 10.0
cached_input_usd = 1.0
output_usd = 20.0
up_to_input_tokens = 1000
as_of = 2026-11-21
source = "a test"

["small-1.5"]
input_usd = 2
output_usd = 4
as_of = 2026-11-21
source = "a test"
"""
)


@pytest.mark.parametrize(
    ("model", "usage", "dollars"),
    [
        ("big", Usage(input_tokens=1000, output_tokens=500), 0.02),
        ("big", Usage(input_tokens=1000, output_tokens=500, cached_input_tokens=400), 0.0164),
        ("big", Usage(input_tokens=100, cached_input_tokens=900), 0.0001),
        ("big", Usage(), 0.0),
        ("small-1.5", Usage(input_tokens=1000, output_tokens=1000, cached_input_tokens=1000), 0.006),
    ],
)
def test_cost_by_kind_of_token(model: str, usage: Usage, dollars: float) -> None:
    """Cached input is part of the input, at its own price where there is one."""
    assert cost_usd(PRICES, model, usage) == pytest.approx(dollars)


@pytest.mark.parametrize("model", ["unknown", "big-two", "bi", "big-2026", "BIG"])
def test_an_unknown_price_is_no_price(model: str) -> None:
    """None, never zero, and never that of something similar."""
    assert cost_usd(PRICES, model, Usage(input_tokens=1)) is None


def test_beyond_its_range_a_price_is_unknown() -> None:
    """Long prompts cost more by a tariff that the table does not hold."""
    assert cost_usd(PRICES, "big", Usage(input_tokens=1001)) is None


def test_a_dated_name_has_the_price_of_its_model() -> None:
    """Providers answer with the name of a snapshot."""
    assert price_of(PRICES, "big-2026-04-01") == PRICES["big"]


def test_the_simulated_model_costs_nothing() -> None:
    """Its price is zero, and stands in the table as such."""
    assert cost_usd(load_prices(), "reading-ease-1", Usage(input_tokens=1000, output_tokens=1000)) == 0.0


def test_every_shipped_price_is_plausible() -> None:
    """Output costs no less than input, cached input no more, and each price says when and where it was read."""
    for model, price in load_prices().items():
        assert price.output_usd >= price.input_usd >= (price.cached_input_usd or 0), model
        assert price.source, model


def test_a_deployment_s_own_prices_go_first(tmp_path: Path) -> None:
    """Model by model: one that comes with Sluice is replaced, one that is missing is added, the others stay."""
    path = tmp_path / "prices.toml"
    path.write_text(
        "".join(
            f'["{model}"]\ninput_usd = 7\noutput_usd = 8\nas_of = 2026-11-21\nsource = "our contract"\n'
            for model in ("gpt-5-mini", "our-model")
        ),
        encoding="utf-8",
    )
    prices, shipped = load_prices(path), load_prices()
    assert (prices["gpt-5-mini"].input_usd, prices["our-model"].output_usd) == (7, 8)
    assert {model: prices[model] for model in shipped if model != "gpt-5-mini"} == {
        model: price for model, price in shipped.items() if model != "gpt-5-mini"
    }


@pytest.mark.parametrize(
    "text", ["[m]\ninput_usd = 1", "[m", '[m]\ninput_usd = -1\noutput_usd = 1\nas_of = 2026-11-21\nsource = "x"']
)
def test_a_bad_price_file_is_named(tmp_path: Path, text: str) -> None:
    """A deployment's own file is checked, and the error leads to it."""
    path = tmp_path / "prices.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PriceFileError, match=r"prices\.toml"):
        load_prices(path)
