"""What a sweep is configured by, and the protocol that its folder keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from toolrec.errors import ConfigError, RunFolderError
from toolrec.files import read_json
from toolrec.recommenders import FitConfig, RecommendersConfig, TransformerConfig
from toolrec.recommenders.checkpoint import BACKBONE
from toolrec.recommenders.config import config_from_json
from tune.spaces import Space, check_space, space_from_json, space_to_json

Scheduler = Literal["asha", "none"]
Searcher = Literal["random", "optuna"]
Promote = Literal["better", "always", "never"]

PROTOCOL = "sweep.json"
SCHEMA_VERSION = 2


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"unknown {name}", value=value, allowed=allowed)


def _at_least(name: str, value: float, lowest: float) -> None:
    if value < lowest:
        raise ConfigError(f"the setting {name} is out of range", value=value, allowed=f"{lowest:g} or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepConfig:
    """One sweep: what is trained, where the trials' settings come from, and which trials may go on.

    Args:
        member: `backbone`, or the attribute whose encoder is trained.
        dataset: the data set's folder.
        recommenders: the folder with the frozen backbone; of a backbone's sweep None.
        text_encoder: folder of a sentence-embedding model, for attributes of kind text.
        base: what the trials' settings are put into; the epochs of a trial and its patience are here.
        scheduler: `asha` prunes, `none` lets every trial run to its end.
        grace_epochs: epochs that every trial may run.
        reduction_factor: about one in so many trials passes each of ASHA's rungs, which are as many times further apart.
        promote: whether the best trial goes to `promote_to`: `better` only where it beats the member that is there.
        promote_to: the recommenders' folder that the best trial becomes a member of.
    """

    member: str
    dataset: Path
    recommenders: Path | None
    text_encoder: Path | None = None
    base: RecommendersConfig
    space: Space
    num_trials: int = 20
    scheduler: Scheduler = "asha"
    grace_epochs: int = 1
    reduction_factor: int = 3
    searcher: Searcher = "random"
    seed: int = 0
    promote: Promote = "better"
    promote_to: Path

    def __post_init__(self) -> None:
        check_space(self.space)
        _at_least("trials", self.num_trials, 1)
        _at_least("grace epochs", self.grace_epochs, 1)
        _at_least("reduction factor", self.reduction_factor, 2)
        _one_of("scheduler", self.scheduler, get_args(Scheduler))
        _one_of("searcher", self.searcher, get_args(Searcher))
        _one_of("promotion", self.promote, get_args(Promote))
        if not 0 <= self.seed < 2**32:
            raise ConfigError("the setting seed is out of range", value=self.seed, allowed="0 to 4294967295")
        if self.grace_epochs > self.max_epochs:
            raise ConfigError("more grace epochs than epochs", value=self.grace_epochs, allowed=f"1 to {self.max_epochs}")

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

    def as_json(self) -> dict[str, Any]:
        """The protocol's entry."""
        fields = asdict(self)
        paths = {name: str(value) for name, value in fields.items() if isinstance(value, Path)}
        return {**fields, **paths, "space": space_to_json(self.space)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What trials run on; it changes no result.

    Args:
        cpus_per_trial: of each trial; it computes with as many threads.
        gpus_per_trial: may be a fraction, so that trials share a GPU; 0 trains on the CPU.
        max_concurrent: trials at a time; None for as many as the CPUs and GPUs take.
        address: a running Ray, or None for one of our own.
        num_cpus: CPUs of our own Ray; None for all.
    """

    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0
    max_concurrent: int | None = None
    address: str | None = None
    num_cpus: int | None = None

    def __post_init__(self) -> None:
        if self.cpus_per_trial <= 0:
            raise ConfigError("the setting CPUs of a trial is out of range", value=self.cpus_per_trial, allowed="above 0")
        _at_least("GPUs of a trial", self.gpus_per_trial, 0)
        if self.max_concurrent is not None:
            _at_least("concurrent trials", self.max_concurrent, 1)


def with_fit(config: SweepConfig, *, max_epochs: int, patience: int) -> SweepConfig:
    """The same sweep with other limits of a trial."""
    fit = replace(config.fit, max_epochs=max_epochs, patience=patience)
    base = replace(config.base, backbone_fit=fit) if config.is_backbone else replace(config.base, encoder_fit=fit)
    return replace(config, base=base)


def recommenders_config(fields: Mapping[str, Any]) -> RecommendersConfig:
    """A training's config from a manifest or a protocol.

    Raises:
        ConfigError: it cannot be read.
    """
    parts = {"backbone": TransformerConfig, "encoder": TransformerConfig, "backbone_fit": FitConfig, "encoder_fit": FitConfig}
    nested = {name: config_from_json(kind, fields.get(name, {})) for name, kind in parts.items()}
    config: RecommendersConfig = config_from_json(RecommendersConfig, {**fields, **nested})
    return config


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
    fields = dict(protocol["config"])
    names = ("dataset", "recommenders", "text_encoder", "promote_to")
    paths = {name: None if fields[name] is None else Path(fields[name]) for name in names}
    space, base = space_from_json(fields["space"]), recommenders_config(fields["base"])
    return SweepConfig(**{**fields, **paths, "space": space, "base": base})
