"""Promotion: the best trial becomes a member of a recommenders' folder, which is replaced whole or not at all."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from toolrec import __version__
from toolrec.data import Dataset
from toolrec.errors import CheckpointError
from toolrec.recommenders import RecommendersConfig, checkpoint
from toolrec.recommenders.fusion.checkpoint import learn_fusions
from toolrec.recommenders.models.attribute import AttributeEncoderModel
from toolrec.recommenders.models.backbone import BackboneModel
from toolrec.recommenders.popularity import count_items
from toolrec.recommenders.training.build import popularity_ndcg
from toolrec.recommenders.training.fit_state import load_best
from toolrec.recommenders.training.validation import validation_set
from toolrec.tuning.config import SweepConfig
from toolrec.tuning.spaces import with_params
from toolrec.tuning.trial import STATE, Plan, trainee_of
from toolrec.tuning.trials import TrialRow
from toolrec.util.files import atomic_folder, locked, sha256_json, storage_errors
from toolrec.util.progress import stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoted:
    """What became of the best trial.

    Args:
        folder: where it is a member now; None if it was not promoted.
        checksum: of the member's files.
        note: why, in words.
    """

    folder: Path | None = None
    checksum: str | None = None
    note: str


def member_checksum(member: Mapping[str, Any]) -> str:
    """What tells a member from a later one of the same name: the checksum of its files' checksums."""
    return sha256_json(member["files"])


def promote(config: SweepConfig, plan: Plan, dataset: Dataset, protocol: Mapping[str, Any], best: TrialRow) -> Promoted:
    """Writes the best trial into the folder that the config names, if it is to.

    Sweeps that end at the same time promote one after the other, each into what the one before has left.

    Raises:
        CheckpointError: the folder has another backbone than the sweep's by now, or is damaged.
    """
    if config.promote == "never":
        return Promoted(note="not promoted, as asked")
    with _alone(config.promote_to):
        return _promote(config, plan, dataset, protocol, best)


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Waits until no other process promotes into the folder; the lock lies beside it, since the folder is replaced."""
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        place = target.with_name(f".{target.name}.lock")
        try:
            lock = locked(place)
        except BlockingIOError:
            stage(f"waiting for another promotion into {target}")
            lock = locked(place, waits=True)
    with lock:
        yield


def _promote(config: SweepConfig, plan: Plan, dataset: Dataset, protocol: Mapping[str, Any], best: TrialRow) -> Promoted:
    target, figure = config.promote_to, float(best.best_ndcg_at_10 or 0.0)
    there = _figure_there(target, config.member)
    if config.promote == "better" and there is not None and figure <= there:
        return Promoted(note=f"not promoted: {config.member} in {target} has a validation ndcg@10 of {there:.4f}")
    trained = with_params(config.base, best.params, is_backbone=config.is_backbone)
    trainee, _ = trainee_of(replace(plan, device="cpu"), trained)  # this process may have no GPU
    model = trainee.model
    load_best(plan.trials / best.trial_id / STATE, model)
    kind = model.kind if isinstance(model, BackboneModel) else "attribute_encoder"
    num_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    record = {**_record(config, protocol, best), "kind": kind, "num_parameters": num_parameters}
    if isinstance(model, AttributeEncoderModel):
        _write_encoder(config, dataset, trained, model, record, best)
    elif isinstance(model, BackboneModel):
        _write_backbone(config, dataset, trained, model, record, best)
    (member,) = (m for m in checkpoint.recommenders_manifest(target)["members"] if m["name"] == config.member)
    note = f"promoted to {target}" + ("" if there is None else f"; the one before had {there:.4f}")
    return Promoted(folder=target, checksum=member_checksum(member), note=note)


def _figure_there(target: Path, member: str) -> float | None:
    if not target.exists():
        return None
    members = {str(m["name"]): m for m in checkpoint.recommenders_manifest(target)["members"]}
    return float(members[member]["validation"]["ndcg@10"]) if member in members else None


def _record(config: SweepConfig, protocol: Mapping[str, Any], best: TrialRow) -> dict[str, Any]:
    """The member's entry in the manifest, with the sweep that it came from."""
    kept = ("space", "num_trials", "scheduler", "grace_epochs", "reduction_factor", "searcher", "seed")
    asked = {name: protocol["config"][name] for name in kept}
    figures = {"max_epochs": config.max_epochs, "validation": protocol["validation"]}
    return {
        "name": config.member,
        "num_epochs": best.num_epochs,
        "best_epoch": best.best_epoch,
        "duration_s": best.duration_s,
        "stopped_by": best.stopped_by or best.status,
        "validation": {"ndcg@10": best.best_ndcg_at_10},
        "sweep": {**asked, **figures, "trial": best.number, "params": dict(best.params)},
    }


def _write_encoder(
    config: SweepConfig,
    dataset: Dataset,
    trained: RecommendersConfig,
    model: AttributeEncoderModel,
    record: Mapping[str, Any],
    best: TrialRow,
) -> None:
    """The folder as it was, or a copy of the sweep's recommenders, with this encoder in it."""
    target, source = config.promote_to, Path(str(config.recommenders))
    base = target if target.exists() else source
    manifest = checkpoint.recommenders_manifest(base)
    checkpoint.check_members(base, manifest)
    if _backbone_files(manifest) != _backbone_files(checkpoint.recommenders_manifest(source)):
        raise CheckpointError(
            "the folder has another backbone than the sweep's", value=str(base), hint="give another --promote-to"
        )
    others = [member for member in manifest["members"] if member["name"] != config.member]
    place = _place(manifest["members"], config.member)
    entries = [m if m["name"] != config.member else {**record, "folder": place} for m in manifest["members"]]
    if len(others) == len(entries):
        entries.append({**record, "folder": place})
    taken = {"schema_version", "kind", "dataset", "checksum", "members", "fusions"}
    fields = {name: value for name, value in manifest.items() if name not in taken}
    with atomic_folder(target) as folder:
        for member in others:
            shutil.copytree(base / member["folder"], folder / member["folder"])
        width = model.dense.out_features
        checkpoint.save_encoder(folder / place, model, trained.encoder, attribute=config.member, backbone_width=width)
        checkpoint.write_training_log(folder, [*_log_of(base, others), *best.log])
        checkpoint.write_manifest(folder, dataset=dataset, members=entries, fields=fields)
    learn_fusions(target, dataset)  # those that were there fused another encoder


def _write_backbone(
    config: SweepConfig,
    dataset: Dataset,
    trained: RecommendersConfig,
    model: BackboneModel,
    record: Mapping[str, Any],
    best: TrialRow,
) -> None:
    """A folder with the popularity counts and this backbone; encoders are trained on it afterwards."""
    count_I = count_items(dataset.train_sequences(), num_items=dataset.num_items)
    validation = validation_set(dataset, max_users=config.fit.max_validation_users)
    popularity: dict[str, Any] = {
        "name": checkpoint.POPULARITY,
        "kind": "popularity",
        "num_parameters": 0,
        "folder": checkpoint.member_folder(checkpoint.POPULARITY),
        "validation": {"ndcg@10": popularity_ndcg(count_I, validation)},
    }
    fields = {
        "toolrec": __version__,
        "torch": torch.__version__,
        "seed": trained.seed,
        "model_history_length": trained.model_history_length,
        "config": trained.as_json(),
        "validation": record["sweep"]["validation"],
    }
    place = checkpoint.member_folder(checkpoint.BACKBONE)
    with atomic_folder(config.promote_to) as folder:
        checkpoint.save_popularity(folder / popularity["folder"], count_I)
        checkpoint.save_backbone(folder / place, model)
        checkpoint.write_training_log(folder, best.log)
        members = [popularity, {**record, "folder": place}]
        checkpoint.write_manifest(folder, dataset=dataset, members=members, fields=fields)


def _backbone_files(manifest: Mapping[str, Any]) -> Any:
    return next(member["files"] for member in manifest["members"] if member["name"] == checkpoint.BACKBONE)


def _place(members: Sequence[Mapping[str, Any]], name: str) -> str:
    """The member's folder, or a new one with the next number."""
    own = [str(member["folder"]) for member in members if member["name"] == name]
    numbers = [int(Path(member["folder"]).name.partition("-")[0]) for member in members if "/" in member["folder"]]
    return own[0] if own else checkpoint.member_folder(name, max(numbers, default=0) + 1)


def _log_of(folder: Path, members: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The members' epochs; none where the folder has no log."""
    if not (folder / checkpoint.TRAINING_LOG).is_file():
        return []
    return [epoch for member in members for epoch in checkpoint.training_log(folder, str(member["name"]))]
