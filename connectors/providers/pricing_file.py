"""Reads the tables of prices: the one that comes with Sluice (`prices.toml`), and a deployment's own."""

from pathlib import Path

from policy.pricing import Price, parse_prices

SHIPPED_PRICES = Path(__file__).with_name("prices.toml")


class PriceFileError(Exception):
    """A price file cannot be used. The message names the file."""


def load_prices(own: Path | None = None) -> dict[str, Price]:
    """The shipped prices; those of a deployment's own file go before them, model by model. Raises `PriceFileError`."""
    return _read(SHIPPED_PRICES) | (_read(own) if own is not None else {})


def _read(path: Path) -> dict[str, Price]:
    try:
        return parse_prices(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PriceFileError(f"{path}: {error}") from error
