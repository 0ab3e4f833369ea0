"""Reads the table of prices: the one that comes with Sluice (`prices.toml`), or a deployment's own."""

from pathlib import Path

from policy.pricing import Price, parse_prices

SHIPPED_PRICES = Path(__file__).with_name("prices.toml")


class PriceFileError(Exception):
    """A price file cannot be used. The message names the file."""


def load_prices(path: Path | None = None) -> dict[str, Price]:
    """The prices in a file, or the shipped ones. Raises `PriceFileError`."""
    path = path or SHIPPED_PRICES
    try:
        return parse_prices(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PriceFileError(f"{path}: {error}") from error
