"""The dry run: a few users for real, in a run folder of their own, and from them the bill of all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from toolrec.data import load_dataset
from toolrec.errors import ConfigError
from toolrec.evaluation.bill import Bill, estimate_bill
from toolrec.simulation.config import EvaluationConfig, unused
from toolrec.simulation.evaluate import run_price, simulate
from toolrec.simulation.run_folder import read_users


def try_few_users(config: EvaluationConfig, *, num_tried: int) -> tuple[Bill, Path]:
    """Simulates the first users of the sample and estimates what the whole run would cost; nothing is scored.

    Samples are nested: with a response cache the whole run does not pay for these users again.

    Args:
        config: the whole run's settings. Its run folder stays untouched: the few users go into one beside it.
        num_tried: how many users are simulated.

    Returns:
        The bill, and the run folder of the few users.

    Raises:
        ToolRecError: as `run_evaluation`.
    """
    if config.resume:
        raise ConfigError("--dry-run and --resume do not go together", hint="a dry run has a folder of its own")
    num_users = config.num_users or load_dataset(config.dataset).num_users
    folder = unused(config.run.with_name(f"{config.run.name}-dry-run"))
    few = replace(config, run=folder, num_users=min(num_tried, num_users), keep_tools=False)
    _, manifest = simulate(few)
    return estimate_bill(read_users(folder), num_users=num_users, price=run_price(few, manifest)), folder
