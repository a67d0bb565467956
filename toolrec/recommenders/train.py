"""One training from its settings to the recommenders' folder. Torch is imported when the training begins."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from toolrec.errors import CheckpointError, ConfigError
from toolrec.recommenders.config import RecommendersConfig
from toolrec.recommenders.recipes import default_config, recipe_named
from toolrec.storage.upload import making_place, refuse_other_objects, upload_folder
from toolrec.util.files import shared_path
from toolrec.util.progress import is_first_process
from toolrec.util.settings import REQUIRED, Settings, branch, setting
from toolrec.util.settings_sources import Layer, flattened, read_mapping, resolve
from toolrec.util.urls import Url

if TYPE_CHECKING:
    from toolrec.recommenders.training.build import TrainingReport

_SHAPE = "recommenders.backbone."
_LENGTH = "recommenders.model_history_length"


class TrainConfig(Settings):
    """Settings of one training. Of `recommenders`, what is not given follows from the recipe."""

    dataset: Path = setting(REQUIRED, "A data set's folder, as `toolrec data prepare` writes it.", argument="DIR")
    out: Path | None = setting(None, "The recommenders' folder; default recommenders/NAME.", flag="--out", is_output=True)
    resume: bool = setting(False, "Continue this training where it was stopped or killed.", flag="--resume", is_output=True)
    attributes: tuple[str, ...] | None = setting(
        None,
        "Attributes to train tools for, comma separated; an empty text for none.",
        flag="--attributes",
        none_word="all",
    )
    recipe: str | None = setting(
        None,
        "A named training: sasrec_strong, bert4rec_strong, sasrec_authors, …; without it the data set's size decides.",
        flag="--recipe",
    )
    backbone: Path | None = setting(
        None,
        "Recommenders' folder whose backbone is used as it is; only attribute encoders are trained.",
        flag="--backbone",
    )
    text_encoder: Path | None = setting(
        None,
        "Folder of a sentence-embedding model, for attributes of kind text (needs the extra: toolrec[text]).",
        flag="--text-encoder",
    )
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "The device to train on.", flag="--device")
    recommenders: RecommendersConfig | None = branch(None, "The backbone, the encoders and how they are trained.")

    @classmethod
    def of(cls, given: Self | Mapping[str, Any]) -> Self:
        """The settings themselves, or made from a mapping on top of its recipe."""
        if not isinstance(given, Mapping):
            return given
        return resolve(cls, [*recipe_layers(flattened(cls, given)), Layer("argument", given)]).settings


def recipe_layers(known: Mapping[str, Any]) -> list[Layer]:
    """The recipe below what is known of a training's settings, by key.

    Raises:
        ConfigError: there is no such recipe, or the shape of a kept backbone is given.
        DataError: the data set, whose size decides, cannot be read.
    """
    if known.get("backbone") is not None:
        _refuse_shape(known)
    name = known.get("recipe")
    if name is not None:
        return [Layer(f"recipe {name}", {"recommenders": recipe_named(str(name)).as_json()})]
    if not isinstance(known.get("dataset"), str | Path):
        return []  # validation says so
    from toolrec.data import load_dataset

    dataset = load_dataset(known["dataset"])
    config = default_config(num_items=dataset.num_items, num_interactions=len(dataset.items))
    return [Layer("the data set's size", {"recommenders": config.as_json()})]


def _refuse_shape(keys: Collection[str]) -> None:
    clashing = [key for key in keys if key.startswith(_SHAPE) or key == _LENGTH]
    if clashing:
        raise ConfigError("a kept backbone has its own shape", value=", ".join(clashing), hint="leave these settings out")


def read_train_config(path: Path) -> dict[str, Any]:
    """The values of a YAML or JSON file, or what trained recommenders were made with by their manifest, by key.

    Raises:
        ConfigError: it cannot be read.
    """
    content = read_mapping(path)
    if "members" in content and isinstance(content.get("config"), dict):
        return flattened(TrainConfig, {"recommenders": content["config"]})
    return flattened(TrainConfig, content)


def train(config: TrainConfig | Mapping[str, Any]) -> TrainingReport:
    """Trains popularity, the backbone and an encoder for every attribute, and writes the recommenders' folder.

    The test split is not read. Training stops early on validation NDCG@10.

    Args:
        config: the settings, or a mapping of them, nested or with keys as in `recommenders.backbone_fit.max_epochs`; what
            is not given follows from the recipe. Relative paths start at the working folder.

    Returns:
        The report: `folder`, and for each member its validation NDCG@10, epochs and seconds.

    Raises:
        ConfigError: an unknown setting, attribute or device, or a training that diverged.
        DataError: the data set cannot be used.
        CheckpointError: something else is at `out`, or an interrupted training with other settings.
        StorageError: `out` cannot be written. What was trained for a URL stays in this node's cache.

    Examples:
        >>> report = toolrec.train({"dataset": "data/demo", "recommenders.backbone_fit.max_epochs": 20})
    """
    from toolrec.data import load_dataset
    from toolrec.recommenders.checkpoint import MANIFEST, are_recommenders
    from toolrec.recommenders.models.text import SentenceEncoder
    from toolrec.recommenders.training.build import train_recommenders

    complete = TrainConfig.of(config)
    out = shared_path(complete.out or Path("recommenders") / complete.dataset.absolute().name)
    recommenders = complete.recommenders or TrainConfig.of(complete.as_json()).recommenders
    assert recommenders is not None, "a recipe stands below every training"
    dataset = load_dataset(complete.dataset)
    if isinstance(out, Url) and is_first_process():
        refuse_other_objects(out, is_ours=are_recommenders, error=CheckpointError)
    report = train_recommenders(
        dataset,
        recommenders,
        out=making_place(out),
        attributes=complete.attributes,
        backbone=complete.backbone,
        text_encoder=None if complete.text_encoder is None else SentenceEncoder(complete.text_encoder),
        device=complete.device,
        resume=complete.resume,
    )
    if isinstance(out, Url) and is_first_process():
        upload_folder(report.folder, out, manifest=MANIFEST)
    return replace(report, folder=out)
