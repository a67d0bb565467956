"""Knobs of the embedded endpoint, all off by default."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from toolrec.errors import ConfigError

SHARES = ("share_typos", "share_invented", "share_short", "share_malformed")


@dataclass(frozen=True, kw_only=True)
class EmbeddedOptions:
    """How the embedded endpoint departs from its plain rules.

    Args:
        latency_s: seconds by which each reply is held back.
        share_typos: share of lists (finish, rank) in which one entry is misspelt.
        share_invented: share of lists in which one entry is an item that does not exist.
        share_short: share of lists that end half way.
        share_malformed: share of replies that are no action or list at all.
        seed: seed of these decisions; with the messages it determines each.
        api_key: the only key taken; None takes any. For tests.
    """

    latency_s: float = 0.0
    share_typos: float = 0.0
    share_invented: float = 0.0
    share_short: float = 0.0
    share_malformed: float = 0.0
    seed: int = 0
    api_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not math.isfinite(self.latency_s) or self.latency_s < 0:
            raise ConfigError("latency_s must be a number of seconds", value=self.latency_s)
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is a share", value=getattr(self, name), allowed="0 to 1")

    @property
    def has_faults(self) -> bool:
        """Whether any reply may be spoilt."""
        return any(getattr(self, name) > 0 for name in SHARES)
