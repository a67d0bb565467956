"""What fusions without an LLM bring: against the backbone, and against an ensemble of as many backbone seeds as tools.

    python benchmarks/fusion_quality.py data/ml-1m --recommenders recommenders/ml-1m
    python benchmarks/fusion_quality.py data/ml-1m --recommenders recommenders/ml-1m --ensemble recommenders/ml-1m-s1

Each ensemble folder gives its backbone; the first folder's joins them. They are averaged as standardised scores or as
logarithms of softmaxes, whichever is better on validation. The test split is read once, after everything is fitted; all
users, paired p-values. `--refit` fits the fusions of the first folder anew before; `--groups` fits the ranker without each
group of features and shows the cross-validated validation NDCG@10 (test is not read for that).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from toolrec.data import Dataset, Split, load_dataset
from toolrec.evaluation.statistics import Resampling, paired_p_values, score_intervals
from toolrec.metrics import pad_lists, positions_of, values_of
from toolrec.recommenders import (
    Fusion,
    ScoringRecommender,
    load_fusions,
    load_recommenders,
    recommenders_manifest,
    refit_fusions,
)
from toolrec.recommenders.fusion.fitting import collect_examples, default_fusion_config
from toolrec.recommenders.fusion.inputs import fusion_inputs
from toolrec.recommenders.fusion.listwise_fitting import fit_listwise
from toolrec.recommenders.scoring import BLOCK_HISTORIES
from toolrec.util.progress import track

METRICS = ("ndcg@10", "recall@10")
NUMBER_FEATURES = ("distance short", "distance long", "missing")


class Ensemble(ScoringRecommender):
    """The mean of several backbones' scores, each standardised or turned into logarithms of its softmax first."""

    def __init__(self, members: Sequence[ScoringRecommender], *, kind: str) -> None:
        super().__init__(f"ensemble of {len(members)} backbones ({kind})", num_items=members[0].num_items)
        self.members, self.kind = tuple(members), kind

    def score(self, history_BL: np.ndarray) -> np.ndarray:
        score_BI = sum(self._shared(member.score(history_BL)[:, 1:]) for member in self.members) / len(self.members)
        return np.concatenate([np.full((len(history_BL), 1), -np.inf), score_BI], axis=1)

    def _shared(self, score_BI: np.ndarray) -> np.ndarray:
        if self.kind == "standardised":
            return (score_BI - score_BI.mean(axis=1, keepdims=True)) / score_BI.std(axis=1, keepdims=True)
        highest = score_BI.max(axis=1, keepdims=True)
        return score_BI - highest - np.log(np.exp(score_BI - highest).sum(axis=1, keepdims=True))


def positions(rows: Mapping[str, ScoringRecommender], dataset: Dataset, split: Split) -> dict[str, np.ndarray]:
    """The target's position in each user's list of 10, 0 where it is not there."""
    users = np.arange(1, dataset.num_users + 1)
    lists: dict[str, list[list[int]]] = {name: [] for name in rows}
    with track(f"ranking for {split} targets", total=len(users), unit="users") as progress:
        for start in range(0, len(users), BLOCK_HISTORIES):
            block = users[start : start + BLOCK_HISTORIES]
            histories = [dataset.history(int(user), split).tolist() for user in block]
            for name, recommender in rows.items():
                ranked = recommender.recommend_many(histories, k=10)
                lists[name] += [[item.item_index for item in items] for items in ranked]
            progress.advance(len(block))
    targets = dataset.targets(split)[1:].astype(np.int64)
    return {name: positions_of(pad_lists(found, length=10), targets) for name, found in lists.items()}


def best_ensemble(folders: Sequence[Path], dataset: Dataset, console: Console) -> ScoringRecommender:
    """The better of both means on validation."""
    members = [load_recommenders(folder, dataset, names=["backbone"])["backbone"] for folder in folders]
    kinds = {kind: Ensemble(members, kind=kind) for kind in ("standardised", "log softmax")}
    ndcg = {kind: float(values_of(found, ["ndcg@10"]).mean()) for kind, found in positions(kinds, dataset, "valid").items()}
    console.print("ensemble, validation ndcg@10: " + ", ".join(f"{kind} {value:.4f}" for kind, value in ndcg.items()))
    return kinds[max(ndcg, key=ndcg.__getitem__)]


def show(found: Mapping[str, np.ndarray], references: Sequence[str], console: Console) -> None:
    """Figures with their intervals, and paired differences of NDCG@10 to the references."""
    value_UM = {name: values_of(position_U, METRICS) for name, position_U in found.items()}
    resampling = Resampling()
    table = Table(title="test split, all users")
    for heading in ("", *METRICS, *(f"ndcg@10 minus {name}" for name in references)):
        table.add_column(heading, justify="right" if heading else "left")
    for name, values in value_UM.items():
        low, high = score_intervals(values, resampling)
        cells = [f"{values[:, m].mean():.4f} ({low[m]:.4f} to {high[m]:.4f})" for m in range(len(METRICS))]
        for reference in references:
            difference = values[:, :1] - value_UM[reference][:, :1]
            base, p = value_UM[reference][:, 0].mean(), paired_p_values(difference, resampling)[0]
            same = name == reference
            cells.append("" if same else f"{difference.mean():+.4f} ({difference.mean() / base:+.1%}), p = {p:.4f}")
        table.add_row(name, *cells)
    console.print(table)


def show_groups(dataset: Dataset, recommenders: Mapping[str, ScoringRecommender], console: Console) -> None:
    """The ranker without each group of features: cross-validated validation NDCG@10 of its best shape."""
    config = default_fusion_config()
    collected = collect_examples(dataset, fusion_inputs(dataset, recommenders), config)
    names = np.array([name.partition(":")[0] for name in collected.feature_names])
    of_tools = np.array([not name.endswith(":neighbours") for name in collected.feature_names])
    is_score = np.isin(names, ("standard", "log share", "inverse position"))
    is_neighbour = is_score & ~of_tools
    is_following = np.isin(names, ("next 1", "next 2", "next 3", "near", "around", "around all"))
    groups = {
        "all features": np.ones(len(names), dtype=bool),
        "without the neighbours' scores": ~is_neighbour,
        "without what follows what": ~is_following,
        "without both": ~is_neighbour & ~is_following,
        "without attribute matches": ~(np.char.startswith(names, "match") | np.isin(names, NUMBER_FEATURES)),
        "without popularity": names != "count",
        "without places and length": ~np.isin(names, ("place", "place distance", "length")),
        "without the tools' scores": ~is_score | ~of_tools,
        "the tools' scores alone": is_score & of_tools,
    }
    table = Table(title=f"validation ndcg@10, cross-validated over {collected.ranker.num_users:,} users")
    table.add_column("features"), table.add_column("ndcg@10", justify="right")
    for label, kept in groups.items():
        examples = replace(collected.ranker, feature_NF=np.ascontiguousarray(collected.ranker.feature_NF[:, kept]))
        with track(label, total=config.ranker.num_fits, unit="fits") as progress:
            fit = fit_listwise(examples, config.ranker, progress=progress)
        table.add_row(f"{label} ({int(kept.sum())})", f"{fit.cross_validated_ndcg_at_10:.4f}")
    console.print(table)


def main() -> None:
    """Reads the flags, fits where asked, and ranks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--recommenders", type=Path, required=True)
    parser.add_argument("--ensemble", type=Path, action="append", default=[], help="a folder whose backbone joins; repeat")
    parser.add_argument("--refit", action="store_true", help="fit the fusions anew")
    parser.add_argument("--groups", action="store_true", help="what each group of features brings, on validation only")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=170)
    dataset = load_dataset(flags.dataset)
    if flags.refit:
        start_s = time.monotonic()
        refit_fusions(flags.recommenders, dataset)
        console.print(f"fitted in {time.monotonic() - start_s:.0f} s")
    recommenders = load_recommenders(flags.recommenders, dataset)
    if flags.groups:
        show_groups(dataset, recommenders, console)
        return
    fusions = load_fusions(flags.recommenders, dataset, recommenders)
    if fusions is None:
        parser.error("the folder has no learned fusions: give --refit")
    tools = [recommender for name, recommender in recommenders.items() if name != "popularity"]
    rows: dict[str, ScoringRecommender] = {**recommenders, "fusion (reciprocal ranks)": Fusion(tools), **fusions.by_name}
    rows["neighbours"] = fusions.by_name["ranker"].source.members[-1]
    references = ["backbone"]
    if flags.ensemble:
        ensemble = best_ensemble([flags.recommenders, *flags.ensemble], dataset, console)
        rows[ensemble.name] = ensemble
        references.append(ensemble.name)
    show(positions(rows, dataset, "test"), references, console)
    validation = recommenders_manifest(flags.recommenders)["fusions"]["validation"]
    console.print(f"validation: {validation}; strongest: {fusions.strongest}")
    console.print(
        f"protocol: {dataset.name}, leave-one-out, full ranking of {dataset.num_items:,} items, seen items masked, all "
        f"{dataset.num_users:,} users; ties in time by {dataset.manifest['tie_break']}; the fusions have {len(tools)} tools"
    )


if __name__ == "__main__":
    main()
