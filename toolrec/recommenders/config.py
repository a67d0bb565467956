"""What a training run is configured by. No torch here."""

from __future__ import annotations

from typing import Any, Literal, Self, TypeVar

from pydantic import model_validator

from toolrec.errors import ConfigError
from toolrec.util.settings import Settings, branch, setting

Loss = Literal["cross_entropy", "sampled_softmax", "in_batch_softmax", "gbce", "bce", "bpr"]
Precision = Literal["auto", "float32", "bfloat16"]
Norm = Literal["pre", "post"]
BackboneKind = Literal["sasrec", "bert4rec"]

MAX_SEED = 2**32 - 1

BACKBONE = "backbone"
"""The backbone's name among the members of a recommenders' folder."""

MAX_FUSION_USERS = 30_000

AnySettings = TypeVar("AnySettings", bound=Settings)


class TransformerConfig(Settings):
    """One Transformer."""

    width: int = setting(64, "Width of the hidden states.", flag="--hidden", ge=1, le=4_096)
    num_layers: int = setting(2, "Number of layers.", flag="--layers", ge=1, le=48)
    num_heads: int = setting(2, "Number of attention heads; the width must be a multiple of it.", flag="--heads", ge=1)
    dropout: float = setting(
        0.3, "Dropout of embeddings, of each layer's output, and inside its feed-forward part.", flag="--dropout", ge=0, lt=1
    )
    attention_dropout: float = setting(0.0, "Dropout of the attention weights.", ge=0, lt=1)
    feed_forward: int = setting(4, "Inner width of the feed-forward part, as a multiple of the width.", ge=1, le=16)
    norm: Norm = setting(
        "pre", "`pre` normalises what enters a layer's parts (easier to train), `post` what leaves them (the original)."
    )

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.width % self.num_heads:
            raise ConfigError("the width must be a multiple of the number of heads", value=f"{self.width} and {self.num_heads}")
        return self


class FitConfig(Settings):
    """How one member is trained and when it stops."""

    loss: Loss = setting(
        "cross_entropy",
        "`cross_entropy` over the whole pool; `sampled_softmax` over the target and `num_negatives` uniform items; "
        "`in_batch_softmax` over the target and as many draws from the batch's targets; `gbce` over as many uniform items; "
        "`bce` and `bpr` with one negative.",
        flag="--loss",
    )
    num_negatives: int = setting(512, "Negatives of the sampled losses.", flag="--negatives", ge=1)
    calibration: float = setting(0.75, "Calibration of gBCE.", ge=0, le=1)
    precision: Precision = setting(
        "auto", "Precision of the products in training; `auto` takes bfloat16 where the processor or GPU has it."
    )
    compile: bool | None = setting(
        None, "Whether the backbone goes through `torch.compile`; null where it trains on a GPU.", flag="--compile"
    )
    learning_rate: float = setting(1e-3, "Learning rate.", flag="--learning-rate", gt=0, le=10)
    weight_decay: float = setting(0.0, "Weight decay.", ge=0)
    averaging: float = setting(
        0.99, "Decay, per batch, of the running average of the weights that is validated and kept; 0 for none.", ge=0, lt=1
    )
    batch_size: int = setting(64, "Sequences in a batch.", flag="--batch-size", ge=1)
    max_epochs: int = setting(200, "Maximum number of epochs.", flag="--epochs", ge=1)
    decay_patience: int = setting(
        0, "Epochs without a better validation NDCG@10 after which the learning rate is halved; 0 for never.", ge=0
    )
    patience: int = setting(10, "Epochs without a better validation NDCG@10 after which training ends.", flag="--patience", ge=1)
    max_validation_users: int = setting(
        2000, "Validation ranks the whole pool for a fixed sample of at most this many users.", ge=1
    )


class RecommendersConfig(Settings):
    """A whole training: the backbone, then one encoder for every attribute on the frozen backbone."""

    model_history_length: int = setting(
        50, "Number of a user's last items that the recommenders read.", flag="--model-history-length", ge=1, le=4_096
    )
    backbone_kind: BackboneKind = setting("sasrec", "The backbone's architecture.")
    backbone: TransformerConfig = branch(TransformerConfig, "The backbone.")
    backbone_fit: FitConfig = branch(FitConfig, "How the backbone is trained.")
    encoder: TransformerConfig = branch(
        TransformerConfig(width=32, num_layers=1, num_heads=2), "An attribute's encoder.", has_flags=False
    )
    encoder_fit: FitConfig = branch(FitConfig, "How an encoder is trained.")
    num_buckets: int = setting(16, "Knots of the value scale of an ordered attribute.", ge=2)
    mask_share: float = setting(
        0.2, "Share of the positions that BERT4Rec's examples mask; SASRec has no use for it.", gt=0, le=1
    )
    learn_fusions: bool = setting(
        True, "Fit the fusions without an LLM on validation once the encoders are trained.", flag="--fusions"
    )
    fusion_users: int = setting(
        MAX_FUSION_USERS,
        "Validation users that the fusions are fitted on at most; fewer take less time.",
        flag="--fusion-users",
        ge=10,
    )
    seed: int = setting(0, "Seed of weights, batches and negatives.", flag="--seed", ge=0, le=MAX_SEED)
    max_time_s: float | None = setting(
        None,
        "Seconds for the whole training; a member that runs out of them keeps its best epoch so far.",
        flag="--max-time-s",
        gt=0,
    )


def config_from_json(kind: type[AnySettings], fields: dict[str, Any]) -> AnySettings:
    """A config from the JSON of a checkpoint.

    Raises:
        ConfigError: a field is unknown or out of range.
    """
    try:
        return kind.model_validate(fields)
    except ConfigError as error:
        raise ConfigError(f"a stored configuration cannot be read ({error})") from None
