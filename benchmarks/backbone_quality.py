"""A backbone's quality: trains one a seed, or takes trained ones, and ranks the whole pool for every user's test target.

    python benchmarks/backbone_quality.py data/ml-100k --seeds 0,1,2
    python benchmarks/backbone_quality.py data/ml-1m --trained recommenders/ml-1m

Recipes were chosen on the validation split; the test split is read once for each backbone, after its training.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from toolrec.data import Dataset, load_dataset
from toolrec.metrics import recall_at_k
from toolrec.recommenders import (
    default_config,
    load_recommenders,
    recipe_named,
    recommenders_manifest,
    train_recommenders,
)
from toolrec.recommenders.training.validation import mean_ndcg


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    seed: int
    recipe: str
    model_history_length: int
    num_epochs: int
    best_epoch: int
    stopped_by: str
    validation_ndcg: float
    test_ndcg: float
    test_recall: float
    duration_s: float
    cpu_s: float | None
    """Of the processor, the whole training; None where it was trained before."""


def test_positions(dataset: Dataset, folder: Path) -> np.ndarray:
    """The test target's position in each user's list of 10, or 11 where it is not there."""
    backbone = load_recommenders(folder, dataset, names=["backbone"])["backbone"]
    users = range(1, dataset.num_users + 1)
    lists = backbone.recommend_many([dataset.history(user, "test").tolist() for user in users], k=10)
    positions = []
    for user, ranked in zip(users, lists, strict=True):
        items = [item.item_index for item in ranked]
        target = dataset.target(user, "test")
        positions.append(items.index(target) + 1 if target in items else 11)
    return np.array(positions)


def measured(dataset: Dataset, folder: Path, *, cpu_s: float | None = None) -> Result:
    """A trained backbone's figures, for all users."""
    manifest = recommenders_manifest(folder)
    (backbone,) = (member for member in manifest["members"] if member["name"] == "backbone")
    config = manifest["config"]
    positions = test_positions(dataset, folder)
    return Result(
        seed=manifest["seed"],
        recipe=f"{backbone['kind']}: {config['backbone']}, {config['backbone_fit']}, mask_share {config['mask_share']}",
        model_history_length=manifest["model_history_length"],
        num_epochs=backbone["num_epochs"],
        best_epoch=backbone["best_epoch"],
        stopped_by=backbone["stopped_by"],
        validation_ndcg=backbone["validation"]["ndcg@10"],
        test_ndcg=mean_ndcg(positions),
        test_recall=float(recall_at_k(positions, 10).mean()),
        duration_s=backbone["duration_s"],
        cpu_s=cpu_s,
    )


def show(dataset: Dataset, results: list[Result]) -> None:
    """The table, the means, and the protocol beside them."""
    table = Table(title=f"backbones on {dataset.name}")
    for heading in (
        "seed",
        "epochs",
        "best",
        "stopped by",
        "valid ndcg@10",
        "test ndcg@10",
        "test recall@10",
        "seconds",
        "CPU s/epoch",
    ):
        table.add_column(heading, justify="right")
    for r in results:
        cpu = "-" if r.cpu_s is None else f"{r.cpu_s / r.num_epochs:.2f}"
        figures = (f"{r.validation_ndcg:.4f}", f"{r.test_ndcg:.4f}", f"{r.test_recall:.4f}")
        table.add_row(str(r.seed), str(r.num_epochs), str(r.best_epoch), r.stopped_by, *figures, f"{r.duration_s:.0f}", cpu)
    console = Console(width=130)
    console.print(table)
    ndcg, recall = (np.array([getattr(r, name) for r in results]) for name in ("test_ndcg", "test_recall"))
    spread = f", standard deviation {ndcg.std(ddof=1):.4f} and {recall.std(ddof=1):.4f}" if len(results) > 1 else ""
    console.print(f"mean of {len(results)}: test ndcg@10 {ndcg.mean():.4f}, test recall@10 {recall.mean():.4f}{spread}")
    lengths = sorted({r.model_history_length for r in results})
    console.print(
        f"protocol: leave-one-out, the last item of every user is the test target; full ranking of {dataset.num_items:,} items, "
        f"seen items masked; all {dataset.num_users:,} users, {len(dataset.items):,} interactions; the last "
        f"{', '.join(map(str, lengths))} items are read; ties in time by {dataset.manifest['tie_break']}"
    )
    for recipe in dict.fromkeys(r.recipe for r in results):
        console.print(f"recipe: {recipe}")
    console.print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")


def main() -> None:
    """Reads the flags, trains the seeds one after the other where nothing trained is given, and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--trained", type=Path, action="append", default=[], help="a recommenders' folder; may be repeated")
    parser.add_argument("--seeds", default="0,1,2", help="with commas between")
    parser.add_argument("--recipe", help="by the data set's size if not given")
    parser.add_argument("--max-time-s", type=float, default=None, help="seconds for each seed")
    flags = parser.parse_args()
    dataset = load_dataset(flags.dataset)
    results = [measured(dataset, folder) for folder in flags.trained]
    if not results:
        size = {"num_items": dataset.num_items, "num_interactions": len(dataset.items)}
        config = recipe_named(flags.recipe) if flags.recipe else default_config(**size)
        for seed in map(int, flags.seeds.split(",")):
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place) / "recommenders"
                start_cpu_s = time.process_time()
                train_recommenders(dataset, config.replaced(seed=seed, max_time_s=flags.max_time_s), out=folder, attributes=[])
                cpu_s = time.process_time() - start_cpu_s
                results.append(measured(dataset, folder, cpu_s=cpu_s))
    show(dataset, results)


if __name__ == "__main__":
    main()
