"""Recommenders' folders: safetensors and JSON, bound to the data set that they were trained on. No pickle.

manifest.json                                 what is here, of which data set, with every file's SHA-256
popularity/weights.safetensors                counts of the training split
backbone/config.json, weights.safetensors
attributes/<n>-<slug>/config.json, weights.safetensors
training_log.csv                              member, epoch, loss, ndcg@10 (validation), seconds
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from toolrec.data import Dataset
from toolrec.errors import CheckpointError, ConfigError
from toolrec.recommenders.config import BACKBONE as BACKBONE
from toolrec.recommenders.config import TransformerConfig, config_from_json
from toolrec.recommenders.models.attribute import AttributeEncoderModel, AttributeRecommender
from toolrec.recommenders.models.backbone import Backbone, BackboneModel
from toolrec.recommenders.models.values import values_of_tensors
from toolrec.recommenders.popularity import Popularity
from toolrec.recommenders.scoring import ScoringRecommender
from toolrec.recommenders.training.trainees import BACKBONES, new_backbone
from toolrec.storage.cache import on_this_node
from toolrec.util.files import read_json, sha256_file, sha256_json, write_json
from toolrec.util.slug import slug
from toolrec.util.urls import place_of

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"
TRAINING_LOG = "training_log.csv"
POPULARITY = "popularity"
RESERVED_NAMES = frozenset({BACKBONE, POPULARITY, "fusion", "none"})
"""Names that no attribute's recommender can have."""


def member_folder(name: str, number: int = 0) -> str:
    """A member's path in the folder."""
    if name in (BACKBONE, POPULARITY):
        return name
    return f"attributes/{number:02d}-{slug(name, default='attribute')}"


def save_backbone(folder: Path, model: BackboneModel) -> None:
    """Writes the backbone's weights and configuration."""
    shape = {"num_items": model.num_items, "model_history_length": model.model_history_length}
    _save(folder, model, {"kind": model.kind, "transformer": model.config.as_json(), **shape})


def save_encoder(
    folder: Path, model: AttributeEncoderModel, config: TransformerConfig, *, attribute: str, backbone_width: int
) -> None:
    """Writes an encoder's weights, with the items' values in them, and its configuration."""
    shape = {
        "backbone_width": backbone_width,
        "max_length": len(model.transformer.position),
    }
    fields = {"kind": "attribute_encoder", "attribute": attribute, "transformer": config.as_json(), **shape}
    _save(folder, model, fields)


def save_popularity(folder: Path, count_I: np.ndarray) -> None:
    """Writes the training split's counts."""
    folder.mkdir(parents=True)
    save_file({"count": torch.from_numpy(np.asarray(count_I, dtype=np.float64))}, folder / "weights.safetensors")


def _save(folder: Path, model: nn.Module, config: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "weights.safetensors")
    write_json(folder / "config.json", dict(config))


def write_manifest(folder: Path, *, dataset: Dataset, members: Sequence[Mapping[str, Any]], fields: Mapping[str, Any]) -> None:
    """Writes the manifest over members that are already in the folder, with their files' checksums.

    Args:
        members: each with `name`, `kind`, `folder` and its figures.
        fields: further entries of the manifest.
    """
    complete = []
    for member in members:
        path = folder / str(member["folder"])
        files = {child.name: sha256_file(child) for child in sorted(path.iterdir())}
        complete.append({**member, "files": files})
    bound_to = {"name": dataset.name, "checksum": dataset.checksum, "num_items": dataset.num_items}
    checksum = sha256_json([bound_to["checksum"], [[m["name"], m["files"]] for m in complete]])
    manifest = {"schema_version": SCHEMA_VERSION, "kind": "recommenders", "dataset": bound_to, **fields}
    write_json(folder / MANIFEST, {**manifest, "checksum": checksum, "members": complete})


def local_recommenders(folder: Path) -> Path:
    """The folder itself; of one at a URL this node's copy.

    Raises:
        CheckpointError: the URL cannot be read, or what is there is damaged.
    """

    def check(copy: Path) -> None:
        check_members(copy, recommenders_manifest(copy))

    return on_this_node(place_of(folder), manifest=MANIFEST, check=check, error=CheckpointError)


def is_recommenders_folder(folder: Path) -> bool:
    """Whether the folder has a recommenders' manifest, so that training may replace it."""
    try:
        recommenders_manifest(folder)
    except CheckpointError:
        return False
    return True


def are_recommenders(names: set[str]) -> bool:
    """Whether objects of these names are a recommenders' folder: a data set and a run have a `manifest.json`, too."""
    return MANIFEST in names and any(name.startswith("backbone/") for name in names)


def recommenders_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a recommenders' folder; at a URL, that of this node's copy.

    Raises:
        CheckpointError: there is none, or it is not one of ours.
    """
    folder = local_recommenders(folder)
    if not folder.is_dir():
        raise CheckpointError("no recommenders' folder here", value=str(folder), hint="train them with `toolrec train DIR`")
    manifest = read_json(folder / MANIFEST, error=CheckpointError)
    if not isinstance(manifest, dict) or manifest.get("kind") != "recommenders":
        raise CheckpointError("not a recommenders' manifest", value=str(folder / MANIFEST))
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise CheckpointError(
            "the recommenders' folder has another schema version",
            value=manifest.get("schema_version"),
            allowed=SCHEMA_VERSION,
            hint="train again with this version of toolrec",
        )
    missing = {"dataset", "members", "checksum", "model_history_length"} - manifest.keys()
    if missing:
        raise CheckpointError("the recommenders' manifest is incomplete", value=sorted(missing))
    unlisted = {POPULARITY, BACKBONE} - {member.get("name") for member in manifest["members"]}
    if unlisted or not all({"folder", "files"} <= member.keys() for member in manifest["members"]):
        raise CheckpointError("the recommenders' manifest does not list its members", value=sorted(unlisted) or None)
    outside = [m["folder"] for m in manifest["members"] if not _is_inside(str(m["folder"]))]
    outside += [name for m in manifest["members"] for name in m["files"] if Path(name).name != name]
    if outside:
        raise CheckpointError("the recommenders' manifest names a path outside its folder", value=outside[0])
    return manifest


def backbone_entry(folder: Path, dataset: Dataset) -> tuple[dict[str, Any], dict[str, Any]]:
    """The backbone's entry in a folder's manifest, and the whole manifest.

    Raises:
        CheckpointError: the folder is not one of ours, or of another data set.
    """
    manifest = recommenders_manifest(folder)
    _check_dataset(manifest, dataset, folder)
    (member,) = (m for m in manifest["members"] if m["name"] == BACKBONE)
    return member, manifest


def write_training_log(folder: Path, epochs: Sequence[Mapping[str, Any]]) -> None:
    """Writes every member's epochs, in the order given."""
    with (folder / TRAINING_LOG).open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["member", "epoch", "loss", "ndcg@10", "seconds"])
        for epoch in epochs:
            figures = f"{epoch['loss']:.6f}", f"{epoch['ndcg_at_10']:.6f}", f"{epoch['duration_s']:.3f}"
            writer.writerow([epoch["member"], epoch["epoch"], *figures])


def training_log(folder: Path, member: str) -> list[dict[str, Any]]:
    """One member's epochs in a folder's training log, as the log is written.

    Raises:
        CheckpointError: there is no log, or it is damaged.
    """
    path = local_recommenders(folder) / TRAINING_LOG
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            return [
                {
                    "member": member,
                    "epoch": int(row["epoch"]),
                    "loss": float(row["loss"]),
                    "ndcg_at_10": float(row["ndcg@10"]),
                    "duration_s": float(row["seconds"]),
                }
                for row in csv.DictReader(handle)
                if row["member"] == member
            ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the training log cannot be read ({error})", value=str(path)) from None


def _is_inside(member_path: str) -> bool:
    path = Path(member_path)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def check_members(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Compares every file of the members with its checksum.

    Raises:
        CheckpointError: one is missing or was changed.
    """
    for member in manifest["members"]:
        _check_files(folder, member)


def load_recommenders(
    folder: Path, dataset: Dataset, *, names: Sequence[str] | None = None, device: str = "cpu"
) -> dict[str, ScoringRecommender]:
    """Loads recommenders, the frozen backbone shared between them.

    Args:
        names: `backbone`, `popularity` or attributes; None for all.
        device: a torch device.

    Returns:
        By name, in the manifest's order: popularity, backbone, then the attributes.

    Raises:
        CheckpointError: the folder is missing or damaged, belongs to another data set, or has no such recommender.
    """
    place, folder = folder, local_recommenders(folder)
    manifest = recommenders_manifest(folder)
    _check_dataset(manifest, dataset, place)
    members = {str(member["name"]): member for member in manifest["members"]}
    wanted = list(members) if names is None else list(names)
    unknown = [name for name in wanted if name not in members]
    if unknown:
        raise CheckpointError("no such recommender in the folder", value=", ".join(unknown), allowed=list(members))
    counts = _tensors(folder, members[POPULARITY])["count"].numpy()
    if len(counts) != dataset.num_items + 1:
        raise CheckpointError("the popularity counts are of another pool", value=len(counts) - 1, allowed=dataset.num_items)
    loaded: dict[str, ScoringRecommender] = {POPULARITY: Popularity(counts)}
    if any(name != POPULARITY for name in wanted):
        backbone = _load_backbone(folder, members[BACKBONE], counts, device)
        loaded[BACKBONE] = backbone
        for name in members:
            if name in wanted and name not in loaded:
                loaded[name] = _load_encoder(folder, members[name], backbone)
    return {name: loaded[name] for name in members if name in wanted}


def _check_dataset(manifest: Mapping[str, Any], dataset: Dataset, folder: Path) -> None:
    bound_to = manifest["dataset"]
    if bound_to["checksum"] != dataset.checksum:
        raise CheckpointError(
            f"the recommenders in {folder} were trained on another data set than {dataset.path}: "
            f"{bound_to['name']} ({bound_to['checksum'][:12]}), not {dataset.name} ({dataset.checksum[:12]})",
            hint="give the recommenders of this data set, or train them with `toolrec train`",
        )


def _load_backbone(folder: Path, member: Mapping[str, Any], counts: np.ndarray, device: str) -> Backbone:
    return Backbone(
        load_backbone_model(folder, member, num_items=len(counts) - 1), popularity_I=counts, name=BACKBONE, device=device
    )


def load_backbone_model(folder: Path, member: Mapping[str, Any], *, num_items: int) -> BackboneModel:
    """The backbone's network, in single precision, as training goes on from it.

    Raises:
        CheckpointError: it is damaged, of an unknown architecture or of another pool.
    """
    fields, config = _config(folder, member)
    if fields.get("kind") not in BACKBONES:
        raise CheckpointError("a backbone of an unknown architecture", value=fields.get("kind"), allowed=list(BACKBONES))
    with _damaged(folder, member):
        model = new_backbone(
            fields["kind"], config, num_items=fields["num_items"], model_history_length=fields["model_history_length"]
        )
        model.load_state_dict(_tensors(folder, member))
    if model.num_items != num_items:
        raise CheckpointError("the backbone is of another pool", value=model.num_items, allowed=num_items)
    return model


def _load_encoder(folder: Path, member: Mapping[str, Any], backbone: Backbone) -> AttributeRecommender:
    fields, config = _config(folder, member)
    tensors = _tensors(folder, member)
    with _damaged(folder, member):
        values = values_of_tensors(tensors, "values.value.")
        model = AttributeEncoderModel(
            config,
            values,
            backbone_width=backbone.item_DI.shape[0],
            max_length=fields["max_length"],
            is_causal=backbone.model.is_causal,
        )
        model.load_state_dict(tensors)
    return AttributeRecommender(str(member["name"]), model, backbone)


def _config(folder: Path, member: Mapping[str, Any]) -> tuple[dict[str, Any], TransformerConfig]:
    _check_files(folder, member)
    fields = read_json(folder / member["folder"] / "config.json", error=CheckpointError)
    with _damaged(folder, member):
        return fields, config_from_json(TransformerConfig, fields["transformer"])


def _tensors(folder: Path, member: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    _check_files(folder, member)
    path = folder / member["folder"] / "weights.safetensors"
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"the weights cannot be read ({error})", value=str(path)) from None
    return tensors


def _check_files(folder: Path, member: Mapping[str, Any]) -> None:
    for name, checksum in member["files"].items():
        path = folder / member["folder"] / name
        if not path.is_file():
            raise CheckpointError("a file of the recommenders is missing", value=str(path), hint="train again")
        if sha256_file(path) != checksum:
            raise CheckpointError("a file of the recommenders is damaged or was changed", value=str(path), hint="train again")


class _damaged:
    """Turns what a damaged member raises while it is built into a CheckpointError that names the folder."""

    def __init__(self, folder: Path, member: Mapping[str, Any]) -> None:
        self.path = folder / str(member["folder"])

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, (KeyError, TypeError, ValueError, RuntimeError, ConfigError)):
            raise CheckpointError(f"a stored recommender does not fit together ({error})", value=str(self.path)) from None
