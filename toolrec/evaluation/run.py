"""From a finished run to its figures: baselines, lists.parquet, summary.json."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from toolrec.data import Dataset
from toolrec.evaluation.baselines import ManyRecommender, Recommend, recommend_for
from toolrec.evaluation.statistics import Resampling
from toolrec.evaluation.summary import STRONGEST, summarise, user_figures
from toolrec.llm.prices import Price
from toolrec.recommenders.fusion.learned import LearnedFusions
from toolrec.records import Usage
from toolrec.runs.folder import LISTS, SUMMARY
from toolrec.util.files import atomic_file, write_json

DEMO_LAYOUT = "demo"
DEMO_NOTE = "tastes are planted in this data: it shows that everything works, not how well it works on real tastes"
FITTED_ON_VALID_NOTE = (
    "the learned fusions are left out: they were fitted on these validation targets, and their figures here would flatter "
    "them; the recommenders' manifest has their cross-validated NDCG@10"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRun:
    """What a simulation leaves behind.

    Args:
        users: one row a user, in the documented columns of the run folder.
        rounds: all users' rounds, at least their ROUND_COLUMNS.
        protocol: what was run, plain values, in the order in which they are shown. Read by the evaluation: `split`
            (needed), `mask_seen` (default true), `list_length` (default 10), `model`, `seed` (default 0, also of the
            resampling).
        messages: gives blocks of the rounds' LEAK_COLUMNS, in which targets are looked for.
        notes: what a reader must know of this run; they stand above its figures.
        void_usage: what was spent on attempts that came to nothing, by purpose.
        price: what the model costs; None where it is not known.
    """

    users: pd.DataFrame
    rounds: pd.DataFrame
    protocol: Mapping[str, Any]
    messages: Callable[[], Iterable[pd.DataFrame]] | None = None
    notes: tuple[str, ...] = ()
    void_usage: Mapping[str, Usage] = field(default_factory=dict)
    price: Price | None = None


def evaluate_run(
    run: FinishedRun,
    *,
    dataset: Dataset,
    recommenders: Mapping[str, ManyRecommender],
    folder: Path,
    fusions: LearnedFusions | None = None,
    recommend: Recommend = recommend_for,
) -> dict[str, Any]:
    """Scores a run beside the recommenders alone and writes lists.parquet and summary.json into `folder`.

    Args:
        run: the users, their rounds and what was run.
        dataset: the run's data set.
        recommenders: those whose tools the run had, by name: `backbone`, attributes, `popularity`; the fusion of all
            but popularity is added.
        folder: where the files go.
        fusions: those learned on validation, if any.
        recommend: gives the recommenders' lists.

    Returns:
        The summary, as in summary.json.

    Raises:
        RunFolderError: the run holds no user, or one twice.
        StorageError: a file cannot be written.
    """
    users = run.users.sort_values("user_index", ignore_index=True)
    about = data_facts(dataset)
    protocol = {**about, **run.protocol, "price": run.price.as_json() if run.price else None}
    notes = [*(about.get("notes") or ()), *(run.protocol.get("notes") or ()), *run.notes]
    if fusions and protocol["split"] == "valid":
        fusions = None
        notes.append(FITTED_ON_VALID_NOTE)
    if notes:
        protocol["notes"] = notes
    lists = recommend(
        recommenders,
        dataset,
        users["user_index"].tolist(),
        split=protocol["split"],
        mask_seen=bool(protocol.get("mask_seen", True)),
        fusions=fusions.by_name if fusions else None,
    )
    if fusions:
        protocol[STRONGEST] = fusions.strongest
    summary = summarise(
        users,
        dataset,
        lists,
        protocol=protocol,
        rounds=run.rounds,
        messages=run.messages() if run.messages else None,
        resampling=Resampling(seed=int(protocol.get("seed") or 0)),
    )
    if run.void_usage:
        summary["tokens"]["void"] = asdict(sum(run.void_usage.values(), Usage()))
    for tokens in summary["tokens"].values():
        tokens["usd"] = run.price.cost_usd(Usage(**tokens)) if run.price else None
    with atomic_file(folder / LISTS) as temporary:
        user_figures(users, dataset, lists, protocol=protocol).to_parquet(temporary, compression="zstd", index=False)
    write_json(folder / SUMMARY, summary)
    return summary


def left_out_fusions(manifest: Mapping[str, Any], kept: Mapping[str, Any]) -> Iterator[str]:
    """A note where a run lacks a tool that a folder's learned fusions were fitted with.

    Args:
        manifest: of the recommenders' folder.
        kept: the run's recommenders by name.
    """
    fusions = manifest.get("fusions")
    missing = [name for name in (fusions["tools"] if fusions else ()) if name not in kept]
    if missing:
        yield (
            f"the learned fusions are left out: they were fitted with {', '.join(missing)}, which this run has no tool for; "
            "a folder trained with `toolrec train --attributes` for these tools alone has fusions of them"
        )


def data_facts(dataset: Dataset) -> dict[str, Any]:
    """What must stand beside every figure of a data set: its name and size, item filter, tie-break."""
    manifest = dataset.manifest
    facts = {
        "data_set": dataset.name,
        "users_in_data_set": dataset.num_users,
        "items": dataset.num_items,
        "item_filter": manifest.get("filters"),
        "tie_break": manifest.get("tie_break"),
        "ranking": f"{dataset.split_name}, against the whole pool",
    }
    notes = [reason.sentence for reason in dataset.too_small]
    if manifest.get("source", {}).get("layout") == DEMO_LAYOUT:
        notes.insert(0, DEMO_NOTE)
    return facts | ({"notes": notes} if notes else {})
