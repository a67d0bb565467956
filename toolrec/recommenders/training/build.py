"""A whole training: popularity, the backbone, then an encoder for every attribute, into one folder."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from toolrec import __version__
from toolrec.data import Dataset
from toolrec.errors import CheckpointError, ConfigError, DataError
from toolrec.provenance import installed_packages, machine_facts
from toolrec.recommenders import checkpoint
from toolrec.recommenders.config import FitConfig, RecommendersConfig, config_from_json
from toolrec.recommenders.fusion.checkpoint import learn_fusions
from toolrec.recommenders.models.attribute import AttributeEncoderModel
from toolrec.recommenders.models.backbone import BackboneModel
from toolrec.recommenders.models.text import TextEncoder
from toolrec.recommenders.models.values import ItemValues, attribute_values, values_digest
from toolrec.recommenders.popularity import count_items
from toolrec.recommenders.training.fitting import FitResult, fit
from toolrec.recommenders.training.frozen import FrozenStates, frozen_for_now
from toolrec.recommenders.training.parallel import Group, joined
from toolrec.recommenders.training.trainees import BackboneTrainee, EncoderTrainee, new_backbone
from toolrec.recommenders.training.unfinished import UnfinishedTraining, unfinished
from toolrec.recommenders.training.validation import ValidationSet, full_ranking, mean_ndcg, validation_set
from toolrec.util.files import atomic_folder
from toolrec.util.progress import is_first_process

STATE_INTERVAL_S = 20.0
"""A kill costs the epoch under way and at most so many seconds more."""

BACKBONE_TIME_SHARE = 0.6
"""Share of the time budget that the backbone may take where encoders follow; those share what is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberReport:
    """One row of what a training shows at its end; the NDCG@10 is on the validation split."""

    name: str
    kind: str
    num_parameters: int
    num_epochs: int
    best_epoch: int
    duration_s: float
    ndcg_at_10: float
    stopped_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """What a training made, and where.

    `fusions` has the validation NDCG@10 of the fusions without an LLM by name, `fused_tools` that of the tools for the same
    users.
    """

    folder: Path
    num_validation_users: int
    duration_s: float
    members: tuple[MemberReport, ...]
    fusions: Mapping[str, float] = field(default_factory=dict)
    fused_tools: Mapping[str, float] = field(default_factory=dict)


def resolve_device(name: str) -> str:
    """The torch device of `cpu`, `cuda` or `auto`.

    Raises:
        ConfigError: the name is unknown, or there is no such device here.
    """
    allowed = ("auto", "cpu", "cuda")
    if name not in allowed:
        raise ConfigError("unknown device", value=name, allowed=allowed)
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise ConfigError("no CUDA device can be used here", value=name, hint="use --device cpu, or a CUDA build of torch")
    return "cuda" if name != "cpu" and has_cuda else "cpu"


def check_attributes(dataset: Dataset, attributes: Sequence[str] | None) -> tuple[str, ...]:
    """The attributes to train for, in the order given; None for all of the pool.

    Raises:
        ConfigError: one is unknown, given twice, or has a name that a recommender of another kind has.
    """
    known = tuple(dataset.pool.attributes)
    wanted = known if attributes is None else tuple(attributes)
    for name in wanted:
        if name not in known:
            raise ConfigError("unknown attribute", value=name, allowed=known or "the data set has no attributes")
        if name in checkpoint.RESERVED_NAMES:
            raise ConfigError("the attribute has a recommender's own name", value=name, hint="rename it in the data")
    if len(set(wanted)) < len(wanted):
        raise ConfigError("an attribute is named twice", value=", ".join(wanted))
    return wanted


def train_recommenders(
    dataset: Dataset,
    config: RecommendersConfig,
    *,
    out: Path,
    attributes: Sequence[str] | None = None,
    backbone: Path | None = None,
    text_encoder: TextEncoder | None = None,
    device: str = "cpu",
    resume: bool = False,
) -> TrainingReport:
    """Trains all recommenders of a data set and writes their folder, whole or not at all.

    Until it is whole, what was trained is in the folder `OUT.unfinished`: see `unfinished`.

    Args:
        out: a new folder, or a recommenders' folder, which is replaced.
        attributes: None for all of the pool; empty for the backbone alone.
        backbone: a recommenders' folder of the same data set whose backbone is taken over instead of training one; it may
            be `out` itself.
        text_encoder: reads attributes of kind `text`.
        device: `cpu`, `cuda` or `auto`.
        resume: go on with the training of `out` that was stopped or killed, if there is one. On a CPU the result is that of
            one that was not; processes under torchrun draw dropout anew.

    Raises:
        CheckpointError: `out` is there and is no recommenders' folder, the backbone is damaged or of another data set, or an
            unfinished training is there that `resume` does not ask for, that has other settings, or that a process is at.
        ConfigError: an unknown attribute or device, a text without a text encoder, or a training that diverged.
        DataError: no user has two training items.
    """
    out = Path(out)
    backbone = None if backbone is None else checkpoint.local_recommenders(backbone)
    names = check_attributes(dataset, attributes)
    torch_device = resolve_device(device)
    if out.exists() and not checkpoint.is_recommenders_folder(out):
        raise CheckpointError(
            "the output place is not a recommenders' folder, and is not replaced", value=str(out), hint="give another --out"
        )
    # Before the backbone trains: what is wrong with them should not be found out an hour later.
    values = {
        name: attribute_values(dataset.pool, name, num_buckets=config.num_buckets, text_encoder=text_encoder) for name in names
    }
    settings = _settings(dataset, config, values, backbone=backbone, device=torch_device)
    with unfinished(out, settings, resume=resume, is_first=is_first_process()) as states:
        with joined(is_cuda=torch_device == "cuda") as group, _folder_of(out, states, group) as folder:
            training = _Training(dataset, config, folder, states, device=torch_device, num_encoders=len(names))
            training.popularity()
            model = training.backbone() if backbone is None else training.take_over(backbone)
            if names:
                examples = model.fixed_examples(training.sequences, mask_share=config.mask_share)
                with frozen_for_now(model, examples, training.validation, folder=folder) as frozen:
                    for number, name in enumerate(names, start=1):
                        training.encoder(name, number, values[name], frozen)
            report = training.finish(out)
        # The members are safe in their folder before the fusions are fitted.
        if names and config.learn_fusions and group.is_first:
            fitted = learn_fusions(out, dataset, max_users=config.fusion_users, device=torch_device)
            if fitted is not None:
                report = replace(report, fusions=fitted.ndcg_at_10, fused_tools=fitted.tool_ndcg_at_10)
    return replace(report, duration_s=time.monotonic() - training.start_s)


def _settings(
    dataset: Dataset, config: RecommendersConfig, values: Mapping[str, ItemValues], *, backbone: Path | None, device: str
) -> dict[str, Any]:
    """All that an unfinished training must be resumed with; it may be given more time, or less."""
    fields: dict[str, Any] = {}
    for name, value in config.replaced(max_time_s=None).as_json().items():
        fields |= {f"{name}.{part}": of_it for part, of_it in value.items()} if isinstance(value, dict) else {name: value}
    kept = None if backbone is None else checkpoint.backbone_entry(backbone, dataset)[0]["files"]
    return {
        **fields,
        "toolrec": __version__,
        "device": device,
        "dataset_checksum": dataset.checksum,
        "attributes": [[name, values_digest(of_items)] for name, of_items in values.items()],
        "kept_backbone": kept,
    }


@contextlib.contextmanager
def _folder_of(out: Path, states: UnfinishedTraining, group: Group) -> Iterator[Path]:
    """The first process's folder becomes `out`; the others' is thrown away."""
    if group.is_first:
        with atomic_folder(out, temporary=states.members) as folder:
            yield folder
    else:
        with tempfile.TemporaryDirectory() as place:
            yield Path(place)


class _Training:
    def __init__(
        self,
        dataset: Dataset,
        config: RecommendersConfig,
        folder: Path,
        states: UnfinishedTraining,
        *,
        device: str,
        num_encoders: int,
    ) -> None:
        self.dataset, self.config, self.folder, self.device = dataset, config, folder, device
        self.states, self.start_s = states, time.monotonic() - states.elapsed_s()
        self.encoders_left = num_encoders
        self.sequences = dataset.train_sequences()
        if not any(len(sequence) >= 2 for sequence in self.sequences):
            raise DataError(
                "no user has two items in the training split: there is nothing to learn from", value=str(dataset.path)
            )
        self.validation: ValidationSet = validation_set(dataset, max_users=config.backbone_fit.max_validation_users)
        self.reports: list[MemberReport] = []
        self.members: list[dict[str, Any]] = []
        self.log: list[dict[str, Any]] = []

    def popularity(self) -> None:
        start_s = time.monotonic()
        count_I = count_items(self.sequences, num_items=self.dataset.num_items)
        checkpoint.save_popularity(self.folder / checkpoint.member_folder(checkpoint.POPULARITY), count_I)
        ndcg = popularity_ndcg(count_I, self.validation)
        report = MemberReport(
            name=checkpoint.POPULARITY,
            kind="popularity",
            num_parameters=0,
            num_epochs=0,
            best_epoch=0,
            duration_s=time.monotonic() - start_s,
            ndcg_at_10=ndcg,
            stopped_by="",
        )
        self._add(report, checkpoint.member_folder(checkpoint.POPULARITY))

    def backbone(self) -> BackboneModel:
        config, name = self.config, checkpoint.BACKBONE
        trainee, seed = backbone_in_training(self.dataset, config, self.validation, device=self.device)
        model = trainee.model
        share = BACKBONE_TIME_SHARE if self.encoders_left else 1.0
        place = checkpoint.member_folder(name)
        result = fit(
            trainee,
            config.backbone_fit,
            seed=seed,
            deadline_s=None if config.max_time_s is None else self.start_s + config.max_time_s * share,
            state_path=self.states.state_of(place),
            state_interval_s=STATE_INTERVAL_S,
        )
        checkpoint.save_backbone(self.folder / place, model)
        self._add_fitted(name, model.kind, place, model, result)
        return model

    def take_over(self, source: Path) -> BackboneModel:
        """The backbone of another folder, its figures with it."""
        member, fields = checkpoint.backbone_entry(source, self.dataset)
        model = checkpoint.load_backbone_model(source, member, num_items=self.dataset.num_items)
        place = checkpoint.member_folder(checkpoint.BACKBONE)
        shutil.copytree(source / member["folder"], self.folder / place)
        trained = fields["config"]
        self.config = self.config.replaced(
            model_history_length=model.model_history_length,
            backbone_kind=model.kind,
            backbone=model.config,
            backbone_fit=config_from_json(FitConfig, trained["backbone_fit"]),
            mask_share=trained["mask_share"],
        )
        self.log.extend(checkpoint.training_log(source, checkpoint.BACKBONE))
        kept = {f.name: member[f.name] for f in dataclass_fields(MemberReport) if f.name != "ndcg_at_10"}
        self._add(MemberReport(**kept, ndcg_at_10=member["validation"]["ndcg@10"]), place)
        return model.to(self.device)

    def encoder(self, name: str, number: int, values: ItemValues, frozen: FrozenStates) -> None:
        config = self.config
        trainee, seed = encoder_in_training(name, config, values, frozen, device=self.device)
        model, width = trainee.model, frozen.weight_ID.shape[1]
        place = checkpoint.member_folder(name, number)
        result = fit(
            trainee,
            config.encoder_fit,
            seed=seed,
            deadline_s=self._encoder_deadline(place),
            state_path=self.states.state_of(place),
            state_interval_s=STATE_INTERVAL_S,
        )
        self.encoders_left -= 1
        checkpoint.save_encoder(self.folder / place, model, config.encoder, attribute=name, backbone_width=width)
        self._add_fitted(name, "attribute_encoder", place, model, result)

    def _encoder_deadline(self, place: str) -> float | None:
        if self.config.max_time_s is None:
            return None
        begun_s = time.monotonic() - self.states.elapsed_s(place)
        left_s = max(0.0, self.start_s + self.config.max_time_s - begun_s)
        return begun_s + left_s / self.encoders_left

    def _add_fitted(self, name: str, kind: str, place: str, model: nn.Module, result: FitResult) -> None:
        self.log.extend(asdict(epoch) for epoch in result.log)
        report = MemberReport(
            name=name,
            kind=kind,
            num_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
            num_epochs=result.num_epochs,
            best_epoch=result.best_epoch,
            duration_s=result.duration_s,
            ndcg_at_10=result.best_ndcg_at_10,
            stopped_by=result.stopped_by,
        )
        self._add(report, place)

    def _add(self, report: MemberReport, place: str) -> None:
        self.reports.append(report)
        fields = {key: value for key, value in asdict(report).items() if key != "ndcg_at_10"}
        self.members.append({**fields, "folder": place, "validation": {"ndcg@10": report.ndcg_at_10}})

    def finish(self, out: Path) -> TrainingReport:
        checkpoint.write_training_log(self.folder, self.log)
        num_users = len(self.validation.targets)
        fields = {
            "toolrec": __version__,
            "torch": torch.__version__,
            "seed": self.config.seed,
            "model_history_length": self.config.model_history_length,
            "config": self.config.as_json(),
            "validation": f"{self.dataset.split_name}, full ranking, seen items masked, {num_users} users",
            "device": self.device,
            "machine": machine_facts() | {"torch_threads": torch.get_num_threads()},
            "packages": installed_packages(),
        }
        checkpoint.write_manifest(self.folder, dataset=self.dataset, members=self.members, fields=fields)
        return TrainingReport(
            folder=out,
            num_validation_users=num_users,
            duration_s=time.monotonic() - self.start_s,
            members=tuple(self.reports),
        )


def backbone_in_training(
    dataset: Dataset, config: RecommendersConfig, validation: ValidationSet, *, device: str
) -> tuple[BackboneTrainee, int]:
    """An untrained backbone, and the seed that its weights came from and its training goes on with."""
    seed = member_seed(config.seed, checkpoint.BACKBONE)
    with seeded(seed):
        model = new_backbone(
            config.backbone_kind,
            config.backbone,
            num_items=dataset.num_items,
            model_history_length=config.model_history_length,
        ).to(device)
    trainee = BackboneTrainee(
        model,
        dataset.train_sequences(),
        validation,
        mask_share=config.mask_share,
        compile=config.backbone_fit.compile,
    )
    return trainee, seed


def encoder_in_training(
    name: str, config: RecommendersConfig, values: ItemValues, frozen: FrozenStates, *, device: str
) -> tuple[EncoderTrainee, int]:
    """An untrained attribute encoder over frozen states, and its seed likewise."""
    seed = member_seed(config.seed, f"attribute:{name}")
    with seeded(seed):
        model = AttributeEncoderModel(
            config.encoder,
            values,
            backbone_width=frozen.weight_ID.shape[1],
            max_length=frozen.about["max_length"],
            is_causal=frozen.about["is_causal"],
        ).to(device)
    return EncoderTrainee(name, model, frozen), seed


def member_seed(seed: int, name: str) -> int:
    """A member's own seed: an encoder comes out the same whichever others are trained with it."""
    return int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0])


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch for a block of code and leaves the process's own random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def popularity_ndcg(count_I: np.ndarray, validation: ValidationSet) -> float:
    """Popularity's NDCG@10 on the validation split."""
    weight_I1 = torch.from_numpy(count_I)[:, None]
    positions = full_ranking(
        lambda _history_BL, last_B, _places: weight_I1.new_ones(len(last_B), 1),
        weight_I1,
        validation,
        model_history_length=1,
    )
    return mean_ndcg(positions)
