"""Prices of models: what tokens cost in dollars, from a file of the user's own. No price ships with the package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from toolrec.errors import ConfigError
from toolrec.records import Usage
from toolrec.util.files import sha256_json

TOKENS_PER_PRICE = 1_000_000
"""Providers name prices for a million tokens, and so do price files."""

MAX_USD = 1e9
"""Dollars for a million tokens beyond which a price is a slip."""

_HINT = "see examples/prices.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What one model costs.

    Args:
        model: the model's name as the endpoint knows it.
        input_usd: dollars for a million tokens of prompts.
        cached_input_usd: the same for those that the endpoint had in its cache.
        output_usd: dollars for a million tokens of replies, reasoning included.
        checked: the day on which whoever wrote the file looked the price up, `YYYY-MM-DD`.
        source: where it was looked up.
    """

    model: str
    input_usd: float
    cached_input_usd: float
    output_usd: float
    checked: str
    source: str

    def cost_usd(self, usage: Usage) -> float:
        """Dollars for what was spent; replies that were stored here before cost nothing."""
        cached_tokens = min(usage.cached_tokens, usage.prompt_tokens)
        total = (
            (usage.prompt_tokens - cached_tokens) * self.input_usd
            + cached_tokens * self.cached_input_usd
            + usage.completion_tokens * self.output_usd
        )
        return total / TOKENS_PER_PRICE

    def as_json(self) -> dict[str, Any]:
        """The price as manifests keep it."""
        return asdict(self)


class PriceTable:
    """Prices by model; a model that is not in it has no known cost, which is not the same as none.

    Args:
        prices: model -> price.
    """

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self._prices = dict(prices)

    @classmethod
    def read(cls, path: Path) -> PriceTable:
        """From a YAML or JSON file: under `models`, each model's fields of `Price`; `cached_input_usd` may be left out.

        Raises:
            ConfigError: the file cannot be read, or an entry is wrong.
        """
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:  # a date or a number that there is not is a ValueError
            raise ConfigError(f"cannot read the price file ({error})", value=str(path), hint=_HINT) from error
        entries = content.get("models") if isinstance(content, dict) else None
        if not isinstance(entries, dict):
            raise ConfigError("the price file has no mapping `models`", value=str(path), hint=_HINT)
        return cls({str(model): _price(str(model), entry) for model, entry in entries.items()})

    def price_of(self, model: str) -> Price | None:
        """The model's price, where it is known."""
        return self._prices.get(model)

    def cost_usd(self, model: str, usage: Usage) -> float | None:
        """Dollars for what was spent at a model; None where its price is not known."""
        price = self.price_of(model)
        return None if price is None else price.cost_usd(usage)

    @property
    def models(self) -> tuple[str, ...]:
        """The models with a price."""
        return tuple(sorted(self._prices))

    @property
    def checksum(self) -> str:
        """Of the whole content."""
        return sha256_json({model: price.as_json() for model, price in self._prices.items()})


def price_from_json(entry: Mapping[str, Any]) -> Price:
    """A price as a manifest keeps it."""
    return Price(**entry)


def _price(model: str, entry: Any) -> Price:
    where = f"the price of {model}"
    if not isinstance(entry, dict):
        raise ConfigError(f"{where} is not a mapping", value=entry, hint=_HINT)
    amounts = ("input_usd", "cached_input_usd", "output_usd")
    unknown = set(entry) - {*amounts, "checked", "source"}
    if unknown:
        raise ConfigError(
            f"{where} has an unknown field", value=sorted(map(str, unknown))[0], allowed=(*amounts, "checked", "source")
        )
    usd = {name: _amount(where, name, entry[name]) for name in amounts if name in entry}
    for name in ("input_usd", "output_usd"):
        if name not in usd:
            raise ConfigError(f"{where} lacks {name}", hint=_HINT)
    for name in ("checked", "source"):
        if not str(entry.get(name) or "").strip():
            raise ConfigError(f"{where} does not say {'when' if name == 'checked' else 'where'} it was looked up", hint=_HINT)
    return Price(
        model=model,
        input_usd=usd["input_usd"],
        cached_input_usd=usd.get("cached_input_usd", usd["input_usd"]),
        output_usd=usd["output_usd"],
        checked=str(entry["checked"]),
        source=str(entry["source"]),
    )


def _amount(where: str, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_USD:
        raise ConfigError(
            f"{where}: {name} must be a number of dollars for a million tokens", value=value, allowed=f"0 to {MAX_USD:g}"
        )
    return float(value)
