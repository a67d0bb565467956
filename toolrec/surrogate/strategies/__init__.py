"""How a user is simulated, by name: the paper's own strategy, those that it is compared with, and its ablations.

Each is a sibling class that is loaded when it is named. See `docs/concepts/strategies.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from toolrec.data import Pool
from toolrec.surrogate.config import SurrogateConfig
from toolrec.util.plugins import OWN, load_plugin

STRATEGIES = OWN["strategy"]
"""The package's own strategies and their classes."""


def load_strategy(name: str) -> Callable[..., Any]:
    """The class of a strategy: one of the package's own, or a part of the user's.

    Raises:
        ConfigError: there is none of that name.
    """
    return load_plugin("strategy", name)


def check_strategy(config: SurrogateConfig, *, pool: Pool, attributes: Sequence[str], model: str) -> None:
    """Refuses settings with which the strategy would only fail, before anything is started.

    Args:
        config: settings.
        pool: the item pool directory.
        attributes: those that a retrieval tool is there for, without `none`.
        model: the name of the LLM.

    Raises:
        ConfigError: there is no such strategy, or it cannot run so.
    """
    check = getattr(load_strategy(config.strategy), "check", None)
    if config.strategy in STRATEGIES and check is not None:
        check(config, pool=pool, attributes=attributes, model=model)


def takes_protocol(name: str) -> bool:
    """Whether `--protocol` says how the strategy's replies are read; those with fixed steps read plain text."""
    return bool(getattr(load_strategy(name), "takes_protocol", True))


def settings_of(name: str) -> frozenset[str]:
    """Which of `STRATEGY_SETTINGS` a strategy reads; an own one may read all."""
    if name not in STRATEGIES:
        return STRATEGY_SETTINGS
    return frozenset(getattr(load_strategy(name), "settings", ()))


STRATEGY_SETTINGS = frozenset({"candidates", "bootstraps", "only_attribute"})
"""Settings that some strategies read and others do not."""
