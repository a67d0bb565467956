"""Learned fusions in a recommenders' folder: safetensors and JSON, listed in its manifest apart from the members.

fusions/<name>/config.json, weights.safetensors   what it fuses, its features, how it was chosen; the learned order

They are no members: nothing serves them, and no surrogate can call them. A folder without them is whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from toolrec.data import Dataset
from toolrec.errors import CheckpointError, ConfigError
from toolrec.recommenders.checkpoint import MANIFEST, load_recommenders, local_recommenders, recommenders_manifest
from toolrec.recommenders.config import MAX_FUSION_USERS
from toolrec.recommenders.fusion.fitting import FittedFusions, FusionConfig, default_fusion_config, fit_fusions
from toolrec.recommenders.fusion.inputs import FusionInputs, fusion_inputs
from toolrec.recommenders.fusion.learned import (
    LEARNED,
    RANKER,
    TOOLS_RANKER,
    LearnedFusion,
    LearnedFusions,
    Ranker,
    ScoreFusion,
    ToolsRanker,
)
from toolrec.recommenders.fusion.listwise import ListwiseModel
from toolrec.recommenders.scoring import ScoringRecommender
from toolrec.util.files import atomic_folder, read_json, sha256_file, write_json
from toolrec.util.urls import place_of

FOLDER = "fusions"


def refit_fusions(folder: Path, dataset: Dataset, config: FusionConfig | None = None, *, device: str = "cpu") -> FittedFusions:
    """Fits the fusions of an existing folder anew and puts them into it, whole or not at all; its members stay as they are.

    Raises:
        CheckpointError: the folder is none of ours, damaged, or of another data set.
        ConfigError: there is nothing to learn from.
    """
    fitted = _fit_into(place_of(folder), dataset, config, device=device)
    if fitted is None:
        raise ConfigError("fusions cannot be learned: hardly any validation target is on a recommender's list", value=str(folder))
    return fitted


def learn_fusions(
    folder: Path, dataset: Dataset, *, max_users: int = MAX_FUSION_USERS, device: str = "cpu"
) -> FittedFusions | None:
    """Fits the fusions of a folder that was just written, and adds them, all or none.

    Nothing is added, and nothing returned, where hardly any user's validation target is on a recommender's list.
    """
    return _fit_into(folder, dataset, default_fusion_config(max_users=max_users), device=device)


def _fit_into(folder: Path, dataset: Dataset, config: FusionConfig | None, *, device: str) -> FittedFusions | None:
    with torch.random.fork_rng(devices=[]):  # a model that is built to be loaded draws first weights
        recommenders = load_recommenders(folder, dataset, device=device)
    fitted = fit_fusions(dataset, recommenders, config)
    if fitted is not None:
        with atomic_folder(folder) as temporary:
            shutil.copytree(folder, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns(FOLDER))
            _add_fusions(temporary, fitted)
    return fitted


def _add_fusions(folder: Path, fitted: FittedFusions) -> None:
    """Writes fitted fusions into a folder that has its members and manifest, and lists them there.

    The manifest's own checksum stays: it binds the tools, and those are the same.
    """
    manifest = recommenders_manifest(folder)
    rows: list[dict[str, Any]] = []
    for name in LEARNED:
        path = folder / FOLDER / name
        path.mkdir(parents=True)
        save_file(fitted.fits[name].model.tensors(), path / "weights.safetensors")
        shape = asdict(fitted.fits[name].shape)
        features = list(fitted.feature_names[name])
        write_json(path / "config.json", {"kind": name, "tools": list(fitted.tools), "features": features, "shape": shape})
        files = {child.name: sha256_file(child) for child in sorted(path.iterdir())}
        rows.append({"name": name, "folder": f"{FOLDER}/{name}", "files": files})
    manifest["fusions"] = {
        "tools": list(fitted.tools),
        "validation": {
            "split": f"valid, {fitted.num_users} users; those that are learned are cross-validated over users",
            "ndcg@10": dict(fitted.ndcg_at_10),
            "tools_ndcg@10": dict(fitted.tool_ndcg_at_10),
        },
        "learned": rows,
    }
    write_json(folder / MANIFEST, manifest)


def strongest_fusion(ndcg_at_10: Mapping[str, float]) -> str:
    """The fusion with the best validation NDCG@10; the first of equal ones."""
    return max(ndcg_at_10, key=ndcg_at_10.__getitem__)


def load_fusions(folder: Path, dataset: Dataset, recommenders: Mapping[str, ScoringRecommender]) -> LearnedFusions | None:
    """The learned fusions of a folder over its loaded recommenders; None where the folder has none.

    Args:
        recommenders: of `load_recommenders`; where one of the fused tools is left out there is no fusion of them.

    Raises:
        CheckpointError: a file is missing, damaged or of other tools.
    """
    folder = local_recommenders(folder)
    listed = recommenders_manifest(folder).get("fusions")
    if listed is None or not set(listed["tools"]) <= recommenders.keys():
        return None
    inputs = fusion_inputs(dataset, {name: recommenders[name] for name in listed["tools"]})
    return LearnedFusions(
        by_name={str(row["name"]): _load(folder, row, inputs) for row in listed["learned"]},
        strongest=strongest_fusion(listed["validation"]["ndcg@10"]),
    )


def _load(folder: Path, row: Mapping[str, Any], inputs: FusionInputs) -> LearnedFusion:
    path = folder / str(row["folder"])
    for name, checksum in row["files"].items():
        if not (path / name).is_file() or sha256_file(path / name) != checksum:
            raise CheckpointError(
                "a file of a learned fusion is missing, damaged or was changed",
                value=str(path / name),
                hint="fit them again with `toolrec fit-fusions`",
            )
    config = read_json(path / "config.json", error=CheckpointError)
    names = {RANKER: inputs.maker.names, TOOLS_RANKER: inputs.visible.names}
    expected = list(names.get(row["name"], inputs.tools))
    if config.get("features") != expected:
        raise CheckpointError(
            "a learned fusion is of other features than this version makes",
            value=str(path),
            hint="fit them again with `toolrec fit-fusions`",
        )
    try:
        model = ListwiseModel(**{name: np.asarray(t, np.float64) for name, t in load_file(path / "weights.safetensors").items()})
        if len(model.mean_F) != len(expected):
            raise ValueError(f"{len(model.mean_F)} features, not {len(expected)}")
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise CheckpointError(f"a stored fusion does not fit together ({error})", value=str(path)) from None
    if row["name"] == RANKER:
        return Ranker(maker=inputs.maker, source=inputs.source, model=model, count_I=inputs.tables.count_I)
    if row["name"] == TOOLS_RANKER:
        return ToolsRanker(maker=inputs.visible, source=inputs.source, model=model, count_I=inputs.tables.count_I)
    return ScoreFusion(num_tools=len(inputs.tools), source=inputs.source, model=model, count_I=inputs.tables.count_I)
