"""From a finished run to its figures: baselines, summary.json, report.html."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from toolrec.data import Dataset
from toolrec.evaluation.baselines import ManyRecommender, recommend_for
from toolrec.evaluation.report import RoundsReader, write_report
from toolrec.evaluation.statistics import Resampling
from toolrec.evaluation.summary import STRONGEST, summarise
from toolrec.files import write_json
from toolrec.llm.prices import Price
from toolrec.recommenders.learned_fusion import LearnedFusions
from toolrec.records import Usage

SUMMARY_FILE = "summary.json"
REPORT_FILE = "report.html"
DEMO_LAYOUT = "demo"
DEMO_NOTE = "tastes are planted in this data: it shows that everything works, not how well it works on real tastes"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRun:
    """What a simulation leaves behind.

    Args:
        users: one row a user, in the documented columns of the run folder.
        rounds: gives the rounds of one user, or of all for None.
        protocol: what was run, plain values, in the order in which they are shown. Read by the evaluation: `split`
            (needed), `mask_seen` (default true), `list_length` (default 10), `model`, `seed` (default 0, also of the
            resampling).
        void_usage: what was spent on attempts that came to nothing, by purpose.
        price: what the model costs; None where it is not known.
    """

    users: pd.DataFrame
    rounds: RoundsReader
    protocol: Mapping[str, Any]
    void_usage: Mapping[str, Usage] = field(default_factory=dict)
    price: Price | None = None


def evaluate_run(
    run: FinishedRun,
    *,
    dataset: Dataset,
    recommenders: Mapping[str, ManyRecommender],
    folder: Path,
    fusions: LearnedFusions | None = None,
) -> dict[str, Any]:
    """Scores a run beside the recommenders alone and writes summary.json and report.html into `folder`.

    Args:
        run: the users, their rounds and what was run.
        dataset: the run's data set.
        recommenders: those whose tools the run had, by name: `backbone`, attributes, `popularity`; the fusion of all
            but popularity is added.
        folder: where both files go.
        fusions: those learned on validation, if any.

    Returns:
        The summary, as in summary.json.

    Raises:
        RunFolderError: the run holds no user, or one twice.
        StorageError: a file cannot be written.
    """
    users = run.users.sort_values("user_index", ignore_index=True)
    protocol = {**data_facts(dataset), **run.protocol, "price": run.price.as_json() if run.price else None}
    lists = recommend_for(
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
        rounds=run.rounds(None),
        resampling=Resampling(seed=int(protocol.get("seed") or 0)),
    )
    if run.void_usage:
        summary["tokens"]["void"] = asdict(sum(run.void_usage.values(), Usage()))
    for tokens in summary["tokens"].values():
        tokens["usd"] = run.price.cost_usd(Usage(**tokens)) if run.price else None
    write_json(folder / SUMMARY_FILE, summary)
    write_report(folder / REPORT_FILE, summary, users, run.rounds, dataset=dataset)
    return summary


def data_facts(dataset: Dataset) -> dict[str, Any]:
    """What must stand beside every figure of a data set: its name and size, item filter, tie-break."""
    manifest = dataset.manifest
    facts = {
        "data_set": dataset.name,
        "users_in_data_set": dataset.num_users,
        "items": dataset.num_items,
        "item_filter": manifest.get("filters"),
        "tie_break": manifest.get("tie_break"),
        "ranking": "leave one out, against the whole pool",
    }
    if manifest.get("source", {}).get("layout") == DEMO_LAYOUT:
        facts["notes"] = [DEMO_NOTE]
    return facts
