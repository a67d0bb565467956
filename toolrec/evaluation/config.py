"""Who is evaluated, on what, and beside whom."""

from __future__ import annotations

from typing import Literal

from toolrec.util.settings import Settings, setting

HeldOutSplit = Literal["test", "valid"]


class EvaluationSettings(Settings):
    """The sample of users, the split, the statistics' seed and further recommenders to score."""

    split: HeldOutSplit = setting(
        "test",
        "Held-out split; develop prompts on `valid`.",
        flag="--split",
        changes_results=True,
        stored_as="split",
    )
    users: int | None = setting(
        None,
        "Number of users to simulate. Samples of one seed are nested.",
        flag="--users",
        none_word="all",
        changes_results=True,
        stored_as="users",
        ge=1,
    )
    seed: int = setting(
        0,
        "Seed of the user sample and of the statistics.",
        flag="--seed",
        changes_results=True,
        stored_as="seed",
        ge=0,
    )
    baselines: tuple[str, ...] = setting(
        (), "Own recommender to score as a baseline: MODULE:CLASS or an entry point; the flag may be repeated.", flag="--baseline"
    )
