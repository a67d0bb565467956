"""Budgets: what a run may spend over all its sessions, and how many requests the rest is good for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Self

from pydantic import model_validator

from toolrec.errors import ConfigError
from toolrec.llm.prices import Price
from toolrec.records import Usage
from toolrec.util.settings import Settings, setting


class BudgetLimits(Settings):
    """A run's caps over all its sessions; none by default."""

    max_usd: float | None = setting(
        None,
        "Dollars at which the run stops; needs --prices; --resume with a higher budget continues it.",
        flag="--budget-usd",
        gt=0,
    )
    max_tokens: int | None = setting(
        None,
        "Tokens (prompt and reply) at which the run stops; --resume with a higher budget continues it.",
        flag="--budget-tokens",
        ge=1,
    )


class BudgetSettings(BudgetLimits):
    """What a run may spend, and the file that says what tokens cost."""

    prices: Path | None = setting(
        None, "YAML file with dollars for a million tokens, by model.", flag="--prices", env="TOOLREC_PRICES"
    )


class Budget(BudgetLimits):
    """A run's caps, and what counts against them.

    Raises:
        ConfigError: a cap that is none, or dollars without a price.
    """

    price: Price | None = setting(None, "What the model costs; needed for `max_usd`.")
    spent: Usage = setting(Usage(), "What earlier sessions of the run have spent.")

    @model_validator(mode="after")
    def _dollars_need_a_price(self) -> Self:
        if self.max_usd is not None and self.price is None:
            raise ConfigError("--budget-usd needs the model's price", hint="give --prices FILE, or use --budget-tokens")
        return self

    def affordable(self, usage: Usage, num_unreported: int = 0) -> int | None:
        """How many more requests end at the cap, at the mean cost of those so far; those in flight are among them.

        Before the first reply tells what a request costs, it is one. Requests that cost more than the mean make the last
        ones pass the cap. Replies whose usage the endpoint does not report count at the mean; where it reports none at
        all nothing is affordable, as no cap could be kept.

        Args:
            usage: what this session has spent.
            num_unreported: completions of this session without usage.

        Returns:
            A number, 0 where a cap is reached; None where there is none.
        """
        total = self.spent + usage
        costs = self._costs(total)
        if costs and self.is_unreported(usage, num_unreported):
            return 0
        num_reported = _num_paid(total) - num_unreported
        if num_reported <= 0 or _tokens(total) == 0:  # of this session's replies none is there yet
            return min((int(cost < cap) for cap, cost in costs), default=None)
        limits = [_affordable(cap - cost, cost / num_reported, num_unreported) for cap, cost in costs]
        return min(limits, default=None)

    def is_unreported(self, usage: Usage, num_unreported: int = 0) -> bool:
        """Whether replies came and nothing is known of what any costs: the endpoint reports no usage."""
        total = self.spent + usage
        return _num_paid(usage) > 0 and (_tokens(total) == 0 or _num_paid(total) <= num_unreported)

    def state(self, usage: Usage) -> str:
        """What is reported as spent of which cap, in words."""
        total = self.spent + usage
        said = []
        if self.max_usd is not None and self.price is not None:
            said.append(f"${self.price.cost_usd(total):,.4f} of ${self.max_usd:,.4f}")
        if self.max_tokens is not None:
            said.append(f"{_tokens(total):,} of {self.max_tokens:,} tokens")
        return ", ".join(said)

    def _costs(self, total: Usage) -> list[tuple[float, float]]:
        """Each cap, and what counts against it."""
        costs: list[tuple[float, float]] = []
        if self.max_usd is not None and self.price is not None:
            costs.append((self.max_usd, self.price.cost_usd(total)))
        if self.max_tokens is not None:
            costs.append((float(self.max_tokens), float(_tokens(total))))
        return costs


def _affordable(left: float, mean: float, num_unreported: int) -> int:
    """Requests of a mean cost that are left; a mean of 0 is a price of 0."""
    left -= mean * num_unreported
    if left <= 0:
        return 0
    return math.ceil(min(left / mean, 1e9)) if mean > 0 else 10**9


def _num_paid(usage: Usage) -> int:
    return usage.num_calls - usage.num_stored_replies


def _tokens(usage: Usage) -> int:
    return usage.prompt_tokens + usage.completion_tokens
