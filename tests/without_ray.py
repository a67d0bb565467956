"""A real run of a few users without Ray, in several blocks, as a run of many users is written."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from toolrec.config import RunConfig
from toolrec.experiments.here import simulate_here
from toolrec.llm.embedded import EmbeddedOptions
from toolrec.pipeline import run_evaluation

BLOCK_USERS = 5


def run_without_ray(
    dataset: Path, recommenders: Path, run: Path, *, users: int, options: EmbeddedOptions | None = None, **settings: Any
) -> Path:
    """What `toolrec evaluate` does with these settings; gives the run folder."""
    given = {"recommenders": recommenders, "run": run, "evaluation.users": users, "tools.mode": "local", **settings}
    config = RunConfig(dataset=dataset).replaced(**given)
    run_evaluation(config, simulate_users=partial(simulate_here, embedded=options, block_users=BLOCK_USERS))
    return run
