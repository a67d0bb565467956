"""The dry run: a few users for real, in a run folder of their own, and from them the bill of all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolrec.config import RunConfig, unused
from toolrec.data import load_dataset
from toolrec.errors import ConfigError
from toolrec.evaluation.bill import Bill, estimate_bill
from toolrec.pipeline import run_price, simulate
from toolrec.runs.folder import read_users


def try_few_users(given: RunConfig | Mapping[str, Any], *, num_tried: int) -> tuple[Bill, Path]:
    """Simulates the first users of the sample and estimates what the whole run would cost; nothing is scored.

    Samples are nested: with a response cache the whole run does not pay for these users again.

    Args:
        given: the whole run's settings. Its run folder stays untouched: the few users go into one beside it.
        num_tried: how many users are simulated.

    Returns:
        The bill, and the run folder of the few users.

    Raises:
        ToolRecError: as `run_evaluation`.
    """
    config = RunConfig.of(given).completed()
    if config.resume:
        raise ConfigError("--dry-run and --resume do not go together", hint="a dry run has a folder of its own")
    num_users = config.evaluation.users or len(load_dataset(config.dataset).users_with_target(config.evaluation.split))
    folder = unused(config.run.with_name(f"{config.run.name}-dry-run"))
    few = config.replaced(**{"run": folder, "evaluation.users": min(num_tried, num_users), "tools.keep": False})
    _, manifest = simulate(few)
    return estimate_bill(read_users(folder), num_users=num_users, price=run_price(few, manifest)), folder
