"""The test split of a sweep, read once: the promoted member beside the backbone and popularity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from toolrec.data import load_dataset
from toolrec.errors import CheckpointError, RunFolderError
from toolrec.evaluation.baselines import recommend_for, row_name
from toolrec.evaluation.statistics import Resampling, paired_p_values, score_intervals
from toolrec.metrics import positions_of, values_of
from toolrec.recommenders import load_recommenders, recommenders_manifest
from toolrec.recommenders.checkpoint import BACKBONE, POPULARITY
from toolrec.tuning.config import config_of, read_protocol
from toolrec.tuning.promote import member_checksum
from toolrec.tuning.results import read_summary
from toolrec.util.files import read_json, write_json

TEST = "test.json"
METRICS = ("recall@10", "ndcg@10")


def test_figures(folder: Path) -> tuple[dict[str, Any], bool]:
    """The figures on the test split, and whether they were read now; a second call gives those of the first.

    Raises:
        RunFolderError: the sweep is not complete, or its best trial was not promoted.
        CheckpointError: the promoted member is no longer there.
    """
    protocol, summary = read_protocol(folder), read_summary(folder)
    if (folder / TEST).is_file():
        return read_json(folder / TEST, error=RunFolderError), False
    if summary.promoted_to is None:
        raise RunFolderError("the sweep promoted nothing that could be tested", value=summary.note)
    config = config_of(protocol)
    dataset = load_dataset(config.dataset)
    place = Path(summary.promoted_to)
    manifest = recommenders_manifest(place)
    member: dict[str, Any] = next((m for m in manifest["members"] if m["name"] == config.member), {})
    if not member or member_checksum(member) != summary.promoted_checksum:
        raise CheckpointError(f"{config.member} in {place} is no longer the sweep's", hint="promote it to a folder of its own")
    names = list(dict.fromkeys([POPULARITY, BACKBONE, config.member]))
    recommenders = load_recommenders(place, dataset, names=names)
    users = dataset.users_with_target("test")
    target_BT = dataset.all_targets("test")[users].astype(np.int64)
    lists = recommend_for(recommenders, dataset, users.tolist(), split="test", length=10)
    values = {name: values_of(positions_of(lists[row_name(name)], target_BT), METRICS) for name in names}
    figures = {
        "protocol": f"test split, {dataset.split_name}, full ranking over {dataset.num_items} items, seen items masked, "
        f"all {len(users)} users, 95% score intervals over users",
        "dataset": protocol["dataset"],
        "recommenders": {"path": str(place), "checksum": manifest["checksum"]},
        "member": config.member,
        "rows": {name: _row(values[name], values[BACKBONE]) for name in names},
    }
    write_json(folder / TEST, figures)
    return figures, True


def _row(value_BM: np.ndarray, backbone_BM: np.ndarray) -> dict[str, Any]:
    resampling = Resampling()
    low_M, high_M = score_intervals(value_BM, resampling)
    row: dict[str, Any] = {
        name: {"value": float(value_BM[:, i].mean()), "interval": [float(low_M[i]), float(high_M[i])]}
        for i, name in enumerate(METRICS)
    }
    if value_BM is not backbone_BM:
        p_M = paired_p_values(value_BM - backbone_BM, resampling)
        row["p_to_backbone"] = {name: float(p_M[i]) for i, name in enumerate(METRICS)}
    return row
