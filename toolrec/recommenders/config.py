"""What a training run is configured by. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from toolrec.errors import ConfigError

Loss = Literal["cross_entropy", "sampled_softmax", "in_batch_softmax", "gbce", "bce", "bpr"]
Precision = Literal["auto", "float32", "bfloat16"]
Norm = Literal["pre", "post"]
BackboneKind = Literal["sasrec", "bert4rec"]


def _check(name: str, value: float, ok: bool, allowed: str) -> None:
    if not ok:
        raise ConfigError(f"the setting {name} is out of range", value=value, allowed=allowed)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """One Transformer: `width` of its states, and how many layers and heads.

    Args:
        dropout: of embeddings, of what a layer adds, and inside its feed-forward part.
        attention_dropout: of the attention's shares.
        feed_forward: the inner width of the feed-forward part, in widths.
        norm: `pre` normalises what enters a layer's parts (easier to train), `post` what leaves them (the original).
    """

    width: int = 64
    num_layers: int = 2
    num_heads: int = 2
    dropout: float = 0.3
    attention_dropout: float = 0.0
    feed_forward: int = 4
    norm: Norm = "pre"

    def __post_init__(self) -> None:
        _check("width", self.width, 1 <= self.width <= 4096, "1 to 4096")
        _check("layers", self.num_layers, 1 <= self.num_layers <= 48, "1 to 48")
        _check("heads", self.num_heads, 1 <= self.num_heads <= self.width, "1 to the width")
        _check("dropout", self.dropout, 0.0 <= self.dropout < 1.0, "0 or more, below 1")
        _check("attention dropout", self.attention_dropout, 0.0 <= self.attention_dropout < 1.0, "0 or more, below 1")
        _check("feed-forward width", self.feed_forward, 1 <= self.feed_forward <= 16, "1 to 16 widths")
        if self.norm not in get_args(Norm):
            raise ConfigError("unknown place of the normalisation", value=self.norm, allowed=get_args(Norm))
        if self.width % self.num_heads:
            raise ConfigError("the width must be a multiple of the number of heads", value=f"{self.width} and {self.num_heads}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """How one member is trained and when it stops.

    Args:
        loss: `cross_entropy` over the whole pool; `sampled_softmax` over the target and `num_negatives` uniform items;
            `in_batch_softmax` over the target and as many draws from the batch's targets; `gbce` over as many uniform items;
            `bce` and `bpr` with one negative.
        calibration: of gBCE, 0 to 1.
        compile: whether the backbone goes through `torch.compile`; None where it trains on a GPU.
        precision: of the products in training; `auto` takes bfloat16 where the processor or GPU has it.
        averaging: decay, per batch, of the running average of the weights that is validated and kept; 0 for the plain weights.
        batch_size: windows in a batch.
        decay_patience: epochs without a better validation NDCG@10 after which the learning rate is halved; 0 for never.
        patience: epochs without a better validation NDCG@10 after which training ends.
        max_validation_users: validation ranks the whole pool for a fixed sample of at most this many users.
    """

    loss: Loss = "cross_entropy"
    num_negatives: int = 512
    calibration: float = 0.75
    precision: Precision = "auto"
    compile: bool | None = None
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    averaging: float = 0.99
    batch_size: int = 64
    max_epochs: int = 200
    decay_patience: int = 0
    patience: int = 10
    max_validation_users: int = 2000

    def __post_init__(self) -> None:
        if self.loss not in get_args(Loss):
            raise ConfigError("unknown loss", value=self.loss, allowed=get_args(Loss))
        _check("negatives", self.num_negatives, self.num_negatives >= 1, "1 or more")
        _check("calibration", self.calibration, 0.0 <= self.calibration <= 1.0, "0 to 1")
        if self.precision not in get_args(Precision):
            raise ConfigError("unknown precision", value=self.precision, allowed=get_args(Precision))
        _check("learning rate", self.learning_rate, 0.0 < self.learning_rate <= 10.0, "above 0, at most 10")
        _check("weight decay", self.weight_decay, self.weight_decay >= 0.0, "0 or more")
        _check("averaging", self.averaging, 0.0 <= self.averaging < 1.0, "0 or more, below 1")
        _check("batch size", self.batch_size, self.batch_size >= 1, "1 or more")
        _check("epochs", self.max_epochs, self.max_epochs >= 1, "1 or more")
        _check("decay patience", self.decay_patience, self.decay_patience >= 0, "0 or more")
        _check("patience", self.patience, self.patience >= 1, "1 or more")
        _check("validation users", self.max_validation_users, self.max_validation_users >= 1, "1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommendersConfig:
    """A whole `toolrec train`: the backbone, then one encoder for every attribute on the frozen backbone.

    Args:
        model_history_length: how many of a user's last items the recommenders read.
        max_time_s: seconds for the whole training, or None; a member that runs out of it keeps its best epoch so far.
        num_buckets: knots of the value scale of an ordered attribute.
        learn_fusions: whether fusions without an LLM are fitted on validation once the encoders are trained.
        mask_share: of the positions that BERT4Rec's examples mask; SASRec has no use for it.
    """

    model_history_length: int = 50
    backbone_kind: BackboneKind = "sasrec"
    backbone: TransformerConfig = field(default_factory=TransformerConfig)
    backbone_fit: FitConfig = field(default_factory=FitConfig)
    encoder: TransformerConfig = field(default_factory=lambda: TransformerConfig(width=32, num_layers=1, num_heads=2))
    encoder_fit: FitConfig = field(default_factory=FitConfig)
    num_buckets: int = 16
    mask_share: float = 0.2
    learn_fusions: bool = True
    seed: int = 0
    max_time_s: float | None = None

    def __post_init__(self) -> None:
        length = self.model_history_length
        _check("model history length", length, 1 <= length <= 4096, "1 to 4096")
        if self.backbone_kind not in get_args(BackboneKind):
            raise ConfigError("unknown backbone", value=self.backbone_kind, allowed=get_args(BackboneKind))
        _check("mask share", self.mask_share, 0.0 < self.mask_share <= 1.0, "above 0, at most 1")
        _check("buckets", self.num_buckets, self.num_buckets >= 2, "2 or more")
        _check("seed", self.seed, 0 <= self.seed < 2**32, "0 to 4294967295")
        if self.max_time_s is not None:
            _check("max time", self.max_time_s, self.max_time_s > 0, "more than 0 seconds")


def config_from_json(kind: type, fields: dict[str, Any]) -> Any:
    """A config dataclass from the JSON of a checkpoint.

    Raises:
        ConfigError: a field is unknown or missing.
    """
    try:
        return kind(**fields)
    except TypeError as error:
        raise ConfigError("a stored configuration cannot be read", value=str(error)) from None
