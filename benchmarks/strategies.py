"""The package's strategies on the same users, and how each differs from ToolRec's own, user by user.

    python benchmarks/strategies.py data/demo --recommenders recommenders/demo --runs runs/strategies
    python benchmarks/strategies.py data/ml-1m --recommenders recommenders/ml-1m --runs runs/strategies-ml-1m --users 500

One run folder a strategy, simulated in this process without Ray, with the embedded rules (not a language model; `zero-shot`
needs an LLM and is left out). A run that is there already is continued or only read. The table's family of tests is every
row but ToolRec's, for both figures. The first run is evaluated as `toolrec evaluate` does, which gives the rows without an
LLM; `toolrec evaluate --resume` with the same settings does so with the others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from toolrec.config import RunConfig
from toolrec.data import Dataset, load_dataset
from toolrec.evaluation.statistics import Resampling, difference_intervals, holm, paired_p_values, score_intervals
from toolrec.experiments.here import simulate_here
from toolrec.metrics import pad_lists, positions_of, values_of
from toolrec.pipeline import run_evaluation, simulate
from toolrec.records import FINISHED
from toolrec.runs.folder import LISTS, read_users
from toolrec.surrogate.strategies import STRATEGIES

METRICS = ("ndcg@10", "recall@10")
REFERENCE = "toolrec"
SURROGATE = "surrogate"


def main() -> None:
    """Runs what is missing, and prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--recommenders", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--users", default="all")
    parser.add_argument("--strategies", default=",".join(name for name in STRATEGIES if name != "zero-shot"))
    given = parser.parse_args()
    names = given.strategies.split(",")
    for name in names:
        run = given.runs / name
        settings = {
            "dataset": given.dataset,
            "recommenders": given.recommenders,
            "run": run,
            "resume": run.exists(),
            "evaluation": {"users": None if given.users == "all" else int(given.users)},
            "surrogate": {"strategy": name},
        }
        config = RunConfig(**settings)
        if name != names[0]:
            simulate(config.completed(), simulate_users=simulate_here)
        elif not (run / LISTS).exists():
            run_evaluation(config, simulate_users=simulate_here)
    print(table(given.runs, names, load_dataset(given.dataset)))


def table(runs: Path, names: list[str], dataset: Dataset) -> str:
    """Every strategy and every row without an LLM beside ToolRec."""
    values = {name: _values(read_users(runs / name), dataset) for name in names}
    first = pd.read_parquet(runs / names[0] / LISTS)
    for row in first["recommender"].unique():
        if not row.startswith(SURROGATE):
            values[f"{row} (no LLM)"] = first[first["recommender"] == row].set_index("user_index")[list(METRICS)]
    reference = values.pop(REFERENCE)
    config = Resampling()
    difference_BM = np.concatenate([(value.loc[reference.index] - reference).to_numpy() for value in values.values()], axis=1)
    p_M = paired_p_values(difference_BM, config)
    low_M, high_M = difference_intervals(difference_BM, p_M, config)
    corrected_M = holm(p_M)
    lines = [
        f"{len(reference):,} users; differences to {REFERENCE} with 95 % intervals; p paired, Holm over {len(p_M)} tests",
        "",
        "| row | " + " | ".join(f"{metric} | difference | p | p (Holm)" for metric in METRICS) + " |",
        "| --- |" + " --- |" * 4 * len(METRICS),
        f"| {REFERENCE} | " + " | ".join(f"{_figure(reference[metric])} | | | " for metric in METRICS) + " |",
    ]
    for number, (name, value) in enumerate(values.items()):
        cells = []
        for offset, metric in enumerate(METRICS):
            at = len(METRICS) * number + offset
            mean = difference_BM[:, at].mean()
            cells += [
                _figure(value[metric]),
                f"{mean:+.4f} ({low_M[at]:+.4f} to {high_M[at]:+.4f})",
                f"{p_M[at]:.4f}",
                f"{corrected_M[at]:.4f}",
            ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _values(users: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    """Every user's figures; the list of one who failed is a miss."""
    finished_B = users["ended_by"].isin(sorted(FINISHED))
    lists = [list(items) if finished else [] for items, finished in zip(users["final_items"], finished_B, strict=True)]
    target_B = dataset.targets("test")[users["user_index"].to_numpy()]
    position_B = positions_of(pad_lists(lists, length=10), target_B.astype(np.int64))
    return pd.DataFrame(values_of(position_B, METRICS), columns=list(METRICS), index=users["user_index"]).sort_index()


def _figure(value_B: pd.Series) -> str:
    low, high = score_intervals(value_B.to_numpy()[:, None], Resampling())
    return f"{value_B.mean():.4f} ({low[0]:.4f} to {high[0]:.4f})"


if __name__ == "__main__":
    main()
