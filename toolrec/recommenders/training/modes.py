"""An attribute learned in three ways: on the frozen backbone, together with it, and as an input from nothing."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from torch import nn

from toolrec.data import Dataset
from toolrec.recommenders.checkpoint import backbone_entry, load_backbone_model
from toolrec.recommenders.config import FitConfig, RecommendersConfig, config_from_json
from toolrec.recommenders.models.attribute import AttributeEncoderModel
from toolrec.recommenders.models.joint import InputModel, JointModel, JointRecommender, JointTrainee
from toolrec.recommenders.models.values import attribute_values
from toolrec.recommenders.popularity import count_items
from toolrec.recommenders.training.build import member_seed, seeded
from toolrec.recommenders.training.fitting import FitResult, fit
from toolrec.recommenders.training.frozen import FrozenStates, freeze
from toolrec.recommenders.training.trainees import EncoderTrainee, new_backbone
from toolrec.recommenders.training.validation import validation_set

Mode = Literal["frozen", "full", "scratch"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedMode:
    """The best of a mode's trainings, by NDCG@10 on validation; `duration_s` is the mean over all epochs, validation included.

    Args:
        num_parameters: that trained.
        duration_s: of an epoch, by the clock. The frozen mode's bear the making of the frozen states.
        total_s: of all trainings.
    """

    recommender: JointRecommender
    learning_rate: float
    validation_ndcg: float
    num_parameters: int
    num_epochs: int
    duration_s: float
    total_s: float


class ModeTraining:
    """Trains one attribute of a recommenders' folder in one way, with the folder's own settings.

    Args:
        folder: whose backbone the modes `frozen` and `full` begin at, and whose encoder's settings are taken.
        place: a folder for the frozen states.
        seed: added to the folder's own.
    """

    def __init__(self, dataset: Dataset, folder: Path, attribute: str, mode: Mode, *, place: Path, seed: int = 0) -> None:
        member, manifest = backbone_entry(folder, dataset)
        self.config = config_from_json(RecommendersConfig, manifest["config"])
        self.mode = mode
        self.seed = member_seed(self.config.seed + seed, f"attribute:{attribute}")
        self._sequences = dataset.train_sequences()
        self._popularity_I = count_items(self._sequences, num_items=dataset.num_items)
        self._validation = validation_set(dataset, max_users=self.config.encoder_fit.max_validation_users)
        self._backbone = load_backbone_model(folder, member, num_items=dataset.num_items)
        self._values = attribute_values(dataset.pool, attribute, num_buckets=self.config.num_buckets)
        self._frozen: FrozenStates | None = None
        self._freeze_s = 0.0
        if mode == "frozen":
            examples = self._backbone.fixed_examples(self._sequences, mask_share=self.config.mask_share)
            start_s = time.monotonic()
            self._frozen = freeze(self._backbone, examples, self._validation, folder=place / "states")
            self._freeze_s = time.monotonic() - start_s

    @property
    def num_validation_users(self) -> int:
        """Users that the learning rate is chosen on."""
        return len(self._validation.targets)

    def best(self, learning_rates: Sequence[float], *, max_epochs: int, patience: int) -> TrainedMode:
        """Trains with every learning rate, each stopped early on validation; keeps the best."""
        best: tuple[FitResult, float, JointModel | InputModel] | None = None
        num_epochs, duration_s = 0, self._freeze_s
        for learning_rate in learning_rates:
            with seeded(self.seed):
                model = self._model()
            config = self.config.encoder_fit.replaced(learning_rate=learning_rate, max_epochs=max_epochs, patience=patience)
            result = self._fit(model, config)
            num_epochs, duration_s = num_epochs + result.num_epochs, duration_s + result.duration_s
            if best is None or result.best_ndcg_at_10 > best[0].best_ndcg_at_10:
                best = result, learning_rate, model
        if best is None:
            raise ValueError("no learning rate is given")
        result, learning_rate, model = best
        trained = model.encoder if self.mode == "frozen" and isinstance(model, JointModel) else model
        return TrainedMode(
            num_parameters=_num_trainable(trained),
            recommender=JointRecommender(model, popularity_I=self._popularity_I),
            learning_rate=learning_rate,
            validation_ndcg=result.best_ndcg_at_10,
            num_epochs=result.num_epochs,
            duration_s=duration_s / num_epochs,
            total_s=duration_s,
        )

    def _model(self) -> JointModel | InputModel:
        backbone = self._backbone
        if self.mode == "scratch":
            untrained = new_backbone(
                backbone.kind,
                backbone.config,
                num_items=backbone.num_items,
                model_history_length=backbone.model_history_length,
            )
            return InputModel(untrained, self._values)
        encoder = AttributeEncoderModel(
            self.config.encoder,
            self._values,
            backbone_width=backbone.item.embedding_dim,
            max_length=backbone.max_length,
            is_causal=backbone.is_causal,
        )
        return JointModel(copy.deepcopy(backbone), encoder)

    def _fit(self, model: JointModel | InputModel, config: FitConfig) -> FitResult:
        name = f"{self.mode}, learning rate {config.learning_rate:g}"
        if self._frozen is not None and isinstance(model, JointModel):
            return fit(EncoderTrainee(name, model.encoder, self._frozen), config, seed=self.seed)
        trainee = JointTrainee(name, model, self._sequences, self._validation, mask_share=self.config.mask_share)
        return fit(trainee, config, seed=self.seed)


def _num_trainable(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
