"""SASRec's quality over seeds: trains the backbone of a data set and ranks the whole pool for every user's test target.

    python benchmarks/sasrec_quality.py data/ml-100k --seeds 0,1,2

The recipe was chosen on the validation split; the test split is read once per seed, after training.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from toolrec.data import Dataset, load_dataset
from toolrec.recommenders import RecommendersConfig, default_config, load_recommenders, train_recommenders
from toolrec.recommenders.validation import mean_ndcg, mean_recall


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedResult:
    seed: int
    num_epochs: int
    best_epoch: int
    validation_ndcg: float
    test_ndcg: float
    test_recall: float
    duration_s: float
    cpu_s: float


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


def measure(dataset: Dataset, config: RecommendersConfig) -> SeedResult:
    """Trains one seed in a temporary folder and ranks for all users."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "recommenders"
        start_s, start_cpu_s = time.monotonic(), time.process_time()
        report = train_recommenders(dataset, config, out=folder, attributes=[])
        duration_s, cpu_s = time.monotonic() - start_s, time.process_time() - start_cpu_s
        positions = test_positions(dataset, folder)
    backbone = report.members[1]
    return SeedResult(
        seed=config.seed,
        num_epochs=backbone.num_epochs,
        best_epoch=backbone.best_epoch,
        validation_ndcg=backbone.ndcg_at_10,
        test_ndcg=mean_ndcg(positions),
        test_recall=mean_recall(positions),
        duration_s=duration_s,
        cpu_s=cpu_s,
    )


def show(dataset: Dataset, config: RecommendersConfig, results: list[SeedResult]) -> None:
    """The table, the means, and the protocol beside them."""
    table = Table(title=f"SASRec on {dataset.name}")
    for heading in (
        "seed",
        "epochs",
        "best",
        "valid ndcg@10",
        "test ndcg@10",
        "test recall@10",
        "seconds",
        "CPU s",
        "CPU s/epoch",
    ):
        table.add_column(heading, justify="right")
    for r in results:
        figures = (f"{r.validation_ndcg:.4f}", f"{r.test_ndcg:.4f}", f"{r.test_recall:.4f}")
        times = (f"{r.duration_s:.0f}", f"{r.cpu_s:.0f}", f"{r.cpu_s / r.num_epochs:.2f}")
        table.add_row(str(r.seed), str(r.num_epochs), str(r.best_epoch), *figures, *times)
    console = Console(width=130)
    console.print(table)
    ndcg, recall = np.mean([r.test_ndcg for r in results]), np.mean([r.test_recall for r in results])
    console.print(f"mean of {len(results)} seeds: test ndcg@10 {ndcg:.4f}, test recall@10 {recall:.4f}")
    console.print(
        f"protocol: leave-one-out, the last item of every user is the test target; full ranking of {dataset.num_items:,} items, "
        f"seen items masked; all {dataset.num_users:,} users, {len(dataset.items):,} interactions; the last "
        f"{config.model_history_length} items are read; ties in time by {dataset.manifest['tie_break']}"
    )
    console.print(f"recipe: {config.backbone}, {config.backbone_fit}")
    console.print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")


def main() -> None:
    """Reads the flags and runs the seeds one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--seeds", default="0,1,2", help="with commas between")
    parser.add_argument("--max-time-s", type=float, default=None, help="seconds for each seed")
    flags = parser.parse_args()
    dataset = load_dataset(flags.dataset)
    config = default_config(num_items=dataset.num_items, num_interactions=len(dataset.items))
    config = replace(config, max_time_s=flags.max_time_s)
    results = [measure(dataset, replace(config, seed=int(seed))) for seed in flags.seeds.split(",")]
    show(dataset, config, results)


if __name__ == "__main__":
    main()
