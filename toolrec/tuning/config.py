"""What a sweep is configured by, and the protocol that its folder keeps."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import model_validator

from toolrec.errors import ConfigError, RunFolderError
from toolrec.recommenders import FitConfig, RecommendersConfig, default_config, recipe_named
from toolrec.recommenders.config import BACKBONE, MAX_SEED, config_from_json
from toolrec.tuning.spaces import Domain, backbone_space, check_space, encoder_space
from toolrec.util.files import read_json, shared_path
from toolrec.util.settings import REQUIRED, Settings, branch, setting
from toolrec.util.slug import slug
from toolrec.util.urls import Url

Scheduler = Literal["asha", "none"]
Searcher = Literal["random", "optuna"]
Promote = Literal["better", "always", "never"]

PROTOCOL = "sweep.json"
SCHEMA_VERSION = 2


class SearchSettings(Settings):
    """Where the trials' parameters come from, and which trials may go on."""

    num_trials: int = setting(20, "How many trials.", flag="--trials", ge=1)
    scheduler: Scheduler = setting("asha", "Prune with ASHA, or let every trial run to its end.", flag="--scheduler")
    grace_epochs: int = setting(1, "Epochs that every trial may run before ASHA prunes.", flag="--grace-epochs", ge=1)
    reduction_factor: int = setting(
        3,
        "About one in so many trials passes each of ASHA's rungs, which are as many times further apart.",
        flag="--reduction-factor",
        ge=2,
    )
    searcher: Searcher = setting("random", "Random draws, or Optuna (pip install 'toolrec[optuna]').", flag="--searcher")
    seed: int = setting(0, "Seed of the draws.", flag="--seed", ge=0, le=MAX_SEED)
    promote: Promote = setting(
        "better", "When the best trial is promoted: `better` only where it beats the member there is.", flag="--promote"
    )


class Resources(Settings):
    """What trials run on; it changes no result."""

    cpus_per_trial: float = setting(1.0, "CPUs of a trial; it computes with as many threads.", flag="--cpus-per-trial", gt=0)
    gpus_per_trial: float = setting(
        0.0, "GPUs of a trial; a fraction lets trials share one, 0 trains on the CPU.", flag="--gpus-per-trial", ge=0
    )
    max_concurrent: int | None = setting(
        None, "Trials at a time; null for as many as the CPUs and GPUs take.", flag="--max-concurrent", ge=1
    )
    address: str | None = setting(None, "A running Ray; without one a Ray of our own.", flag="--ray-address")
    num_cpus: int | None = setting(None, "CPUs of our own Ray; null for all.", flag="--num-cpus", ge=1)


class SweepSettings(SearchSettings):
    """Settings of a new sweep, as the command line and files give them."""

    dataset: Path = setting(REQUIRED, "Data set folder, as `toolrec data prepare` writes it.", argument="DIR")
    sweep: Path | None = setting(None, "The sweep's folder; default sweeps/TIME-NAME-MEMBER.", flag="--sweep", is_output=True)
    epochs: int | None = setting(
        None, "Epochs of a trial that is not pruned; without it the recipe's, at least 9.", flag="--epochs", ge=1
    )
    patience: int | None = setting(
        None, "Epochs without a better validation NDCG@10 before a trial ends; without it the recipe's.", flag="--patience", ge=1
    )
    space: dict[str, Domain] | None = setting(
        None, "Search space, e.g. `learning_rate: {loguniform: [0.0003, 0.01]}`.", file_flag="--space", min_length=1
    )
    promote_to: Path | None = setting(
        None,
        "Recommenders' folder for the best trial; default the encoder's own, or SWEEP/recommenders for a backbone.",
        flag="--promote-to",
    )
    resources: Resources = branch(Resources, "What trials run on.")

    @model_validator(mode="after")
    def _known_parameters(self) -> Self:
        check_space(self.space or {})
        return self

    def trained(self, base: RecommendersConfig, name: str) -> RecommendersConfig:
        """A training with the epochs and the patience asked for: at least 9 epochs, so that ASHA has three rungs."""
        fit: FitConfig = getattr(base, name)
        max_epochs = max(fit.max_epochs, 9) if self.epochs is None else self.epochs
        return base.replaced(**{f"{name}.max_epochs": max_epochs, f"{name}.patience": self.patience or fit.patience})

    @model_validator(mode="after")
    def _no_urls(self) -> Self:
        for name in type(self).setting_names():
            if isinstance(value := getattr(self, name), Url):
                raise ConfigError(f"a sweep takes no URL ({name})", value=str(value), hint="give a folder that every node sees")
        return self

    def folder_of(self, member: str) -> Path:
        """Where the sweep goes."""
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{self.dataset.absolute().name}-{slug(member)}"
        return shared_path(self.sweep or Path("sweeps") / name)

    def extended_to(self, **fields: Any) -> SweepConfig:
        """The sweep itself."""
        common = {name: getattr(self, name) for name in SearchSettings.setting_names()}
        return SweepConfig(**common, dataset=shared_path(self.dataset), **fields)


class EncoderSweep(SweepSettings):
    """A sweep over the settings of one attribute's encoder."""

    attribute: str = setting(REQUIRED, "The attribute whose encoder is trained.", flag="--attribute")
    recommenders: Path | None = setting(
        None, "Folder with the trained backbone; default recommenders/NAME.", flag="--recommenders"
    )
    text_encoder: Path | None = setting(
        None, "Folder of a sentence-embedding model, for attributes of kind text.", flag="--text-encoder"
    )

    def completed(self) -> tuple[SweepConfig, Path]:
        """The sweep, and its folder."""
        from toolrec.recommenders import recommenders_manifest

        source = shared_path(self.recommenders or Path("recommenders") / self.dataset.absolute().name)
        base = recommenders_config(recommenders_manifest(source)["config"])
        config = self.extended_to(
            member=self.attribute,
            recommenders=source,
            text_encoder=None if self.text_encoder is None else shared_path(self.text_encoder),
            base=self.trained(base, "encoder_fit"),
            space=self.space or encoder_space(),
            promote_to=shared_path(self.promote_to or source),
        )
        return config, self.folder_of(self.attribute)


class BackboneSweep(SweepSettings):
    """A sweep over the settings of the backbone."""

    recipe: str | None = setting(None, "Named training to start from; without it the data set's size decides.", flag="--recipe")

    def completed(self) -> tuple[SweepConfig, Path]:
        """The sweep, and its folder."""
        from toolrec.data import load_dataset

        if self.recipe is None:
            dataset = load_dataset(shared_path(self.dataset))
            base = default_config(num_items=dataset.num_items, num_interactions=len(dataset.items))
        else:
            base = recipe_named(self.recipe)
        folder = self.folder_of(BACKBONE)
        config = self.extended_to(
            member=BACKBONE,
            recommenders=None,
            base=self.trained(base, "backbone_fit"),
            space=self.space or backbone_space(),
            promote_to=shared_path(self.promote_to or folder / "recommenders"),
        )
        return config, folder


class SweepConfig(SearchSettings):
    """One sweep as its folder keeps it: all known, every path absolute."""

    member: str = setting(REQUIRED, "`backbone`, or the attribute whose encoder is trained.")
    dataset: Path = setting(REQUIRED, "The data set's folder.")
    recommenders: Path | None = setting(REQUIRED, "The folder with the frozen backbone; null for a backbone's sweep.")
    text_encoder: Path | None = setting(None, "Folder of a sentence-embedding model, for attributes of kind text.")
    base: RecommendersConfig = setting(REQUIRED, "What a trial's parameters are put into; its epochs and patience are here.")
    space: dict[str, Domain] = setting(REQUIRED, "What is searched.")
    promote_to: Path = setting(REQUIRED, "The recommenders' folder that the best trial becomes a member of.")

    @model_validator(mode="after")
    def _trials_can_be_trained(self) -> Self:
        check_space(self.space, self.base, is_backbone=self.is_backbone)
        if self.grace_epochs > self.max_epochs:
            raise ConfigError("more grace epochs than epochs", value=self.grace_epochs, allowed=f"1 to {self.max_epochs}")
        return self

    @property
    def is_backbone(self) -> bool:
        """Whether backbones are trained, and no encoders."""
        return self.member == BACKBONE

    @property
    def fit(self) -> FitConfig:
        """How a trial is trained, before its own parameters."""
        return self.base.backbone_fit if self.is_backbone else self.base.encoder_fit

    @property
    def max_epochs(self) -> int:
        """Epochs of a trial that is not pruned."""
        return self.fit.max_epochs


def with_fit(config: SweepConfig, *, max_epochs: int, patience: int) -> SweepConfig:
    """The same sweep with other limits of a trial."""
    fit = config.fit.replaced(max_epochs=max_epochs, patience=patience)
    base = config.base.replaced(backbone_fit=fit) if config.is_backbone else config.base.replaced(encoder_fit=fit)
    return config.replaced(base=base)


def recommenders_config(fields: Mapping[str, Any]) -> RecommendersConfig:
    """A training's config from a manifest or a protocol.

    Raises:
        ConfigError: it cannot be read.
    """
    return config_from_json(RecommendersConfig, dict(fields))


def read_protocol(folder: Path) -> dict[str, Any]:
    """The protocol of a sweep's folder.

    Raises:
        RunFolderError: there is none, or it is not one of ours.
    """
    protocol = read_json(folder / PROTOCOL, error=RunFolderError)
    if not isinstance(protocol, dict) or protocol.get("kind") != "sweep":
        raise RunFolderError("not a sweep's folder", value=str(folder))
    if protocol.get("schema_version") != SCHEMA_VERSION:
        raise RunFolderError("the sweep is of another version", value=protocol.get("schema_version"), allowed=SCHEMA_VERSION)
    return protocol


def config_of(protocol: Mapping[str, Any]) -> SweepConfig:
    """The config in a protocol."""
    return config_from_json(SweepConfig, dict(protocol["config"]))


def resources_of(protocol: Mapping[str, Any]) -> Resources:
    """What a sweep's trials ran on; which Ray that was is another session's matter."""
    return config_from_json(Resources, {**protocol.get("resources", {}), "address": None})
