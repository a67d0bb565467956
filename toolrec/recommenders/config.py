"""What a training run is configured by. A named run is a function that returns a config. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from toolrec.errors import ConfigError

Loss = Literal["cross_entropy", "sampled_softmax"]


def _check(name: str, value: float, ok: bool, allowed: str) -> None:
    if not ok:
        raise ConfigError(f"the setting {name} is out of range", value=value, allowed=allowed)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """One causal Transformer: `width` of its states, and how many layers and heads."""

    width: int = 64
    num_layers: int = 2
    num_heads: int = 2
    dropout: float = 0.3

    def __post_init__(self) -> None:
        _check("width", self.width, 1 <= self.width <= 4096, "1 to 4096")
        _check("layers", self.num_layers, 1 <= self.num_layers <= 48, "1 to 48")
        _check("heads", self.num_heads, 1 <= self.num_heads <= self.width, "1 to the width")
        _check("dropout", self.dropout, 0.0 <= self.dropout < 1.0, "0 or more, below 1")
        if self.width % self.num_heads:
            raise ConfigError("the width must be a multiple of the number of heads", value=f"{self.width} and {self.num_heads}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """How one member is trained and when it stops.

    Args:
        loss: `cross_entropy` over the whole pool, or `sampled_softmax` over the target and `num_negatives` items.
        averaging: decay, per batch, of the running average of the weights that is validated and kept; 0 for the plain weights.
        batch_size: windows in a batch.
        patience: epochs without a better validation NDCG@10 after which training ends.
        max_validation_users: validation ranks the whole pool for a fixed sample of at most this many users.
    """

    loss: Loss = "cross_entropy"
    num_negatives: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    averaging: float = 0.99
    batch_size: int = 64
    max_epochs: int = 200
    patience: int = 10
    max_validation_users: int = 2000

    def __post_init__(self) -> None:
        if self.loss not in get_args(Loss):
            raise ConfigError("unknown loss", value=self.loss, allowed=get_args(Loss))
        _check("negatives", self.num_negatives, self.num_negatives >= 1, "1 or more")
        _check("learning rate", self.learning_rate, 0.0 < self.learning_rate <= 10.0, "above 0, at most 10")
        _check("weight decay", self.weight_decay, self.weight_decay >= 0.0, "0 or more")
        _check("averaging", self.averaging, 0.0 <= self.averaging < 1.0, "0 or more, below 1")
        _check("batch size", self.batch_size, self.batch_size >= 1, "1 or more")
        _check("epochs", self.max_epochs, self.max_epochs >= 1, "1 or more")
        _check("patience", self.patience, self.patience >= 1, "1 or more")
        _check("validation users", self.max_validation_users, self.max_validation_users >= 1, "1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommendersConfig:
    """A whole `toolrec train`: the backbone, then one encoder for every attribute on the frozen backbone.

    Args:
        model_history_length: how many of a user's last items the recommenders read.
        max_time_s: seconds for the whole training, or None; a member that runs out of it keeps its best epoch so far.
        num_buckets: knots of the value scale of an ordered attribute.
    """

    model_history_length: int = 50
    backbone: TransformerConfig = field(default_factory=TransformerConfig)
    backbone_fit: FitConfig = field(default_factory=FitConfig)
    encoder: TransformerConfig = field(default_factory=lambda: TransformerConfig(width=32, num_layers=1, num_heads=2))
    encoder_fit: FitConfig = field(default_factory=FitConfig)
    num_buckets: int = 16
    seed: int = 0
    max_time_s: float | None = None

    def __post_init__(self) -> None:
        length = self.model_history_length
        _check("model history length", length, 1 <= length <= 4096, "1 to 4096")
        _check("buckets", self.num_buckets, self.num_buckets >= 2, "2 or more")
        _check("seed", self.seed, 0 <= self.seed < 2**32, "0 to 4294967295")
        if self.max_time_s is not None:
            _check("max time", self.max_time_s, self.max_time_s > 0, "more than 0 seconds")


def demo_config() -> RecommendersConfig:
    """For the demo's data set (about 1,000 users, 500 items): under a minute on 2 cores, encoders included."""
    fit = FitConfig(learning_rate=3e-3, batch_size=32, max_epochs=24, patience=6)
    return RecommendersConfig(
        backbone=TransformerConfig(width=64, num_layers=2, num_heads=2, dropout=0.2),
        backbone_fit=fit,
        encoder=TransformerConfig(width=32, num_layers=1, num_heads=2, dropout=0.2),
        encoder_fit=replace(fit, learning_rate=1e-3, max_epochs=8, patience=2),
    )


def ml_100k_config() -> RecommendersConfig:
    """For pools of some thousand items and up to some 300,000 interactions, as ML-100K: full cross-entropy."""
    fit = FitConfig(batch_size=32, max_epochs=50, patience=8)
    return RecommendersConfig(
        model_history_length=50,
        backbone=TransformerConfig(width=128, num_layers=2, num_heads=2, dropout=0.4),
        backbone_fit=fit,
        encoder=TransformerConfig(width=32, num_layers=1, num_heads=2, dropout=0.3),
        encoder_fit=replace(fit, max_epochs=12, patience=3),
    )


def ml_1m_config() -> RecommendersConfig:
    """For up to millions of interactions, as ML-1M: wider, softmax over sampled negatives; about 25 minutes on 2 cores."""
    return RecommendersConfig(
        model_history_length=200,
        backbone=TransformerConfig(width=128, num_layers=2, num_heads=2, dropout=0.2),
        backbone_fit=FitConfig(loss="sampled_softmax", num_negatives=512, batch_size=128),
        encoder_fit=FitConfig(loss="sampled_softmax", num_negatives=512, batch_size=128, max_epochs=5, patience=2),
    )


def default_config(*, num_items: int, num_interactions: int) -> RecommendersConfig:
    """The named run that fits a data set of this size."""
    return _by_size(num_items, num_interactions)()


def _by_size(num_items: int, num_interactions: int) -> Callable[[], RecommendersConfig]:
    if num_items <= 1000 and num_interactions <= 50_000:
        return demo_config
    if num_items <= 5000 and num_interactions <= 300_000:
        return ml_100k_config
    return ml_1m_config


def config_from_json(kind: type, fields: dict[str, Any]) -> Any:
    """A config dataclass from the JSON of a checkpoint.

    Raises:
        ConfigError: a field is unknown or missing.
    """
    try:
        return kind(**fields)
    except TypeError as error:
        raise ConfigError("a stored configuration cannot be read", value=str(error)) from None
