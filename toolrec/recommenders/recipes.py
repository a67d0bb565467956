"""Recipes: named trainings, each a function that returns a config. Chosen on validation; what was tried is in the log.

No torch here.

Source:
    The authors' settings: hidden 64, 2 layers, history of 50; SASRec with 4 heads, dropout 0.5 and BPR with one negative;
    BERT4Rec with 2 heads, dropout 0.2, a fifth masked, cross-entropy; side encoders of width 100 and the backbone's depth.
    We differ: whole sequences in place of one row per prefix, learned value embeddings in place of text vectors.
"""

from __future__ import annotations

from collections.abc import Callable

from toolrec.errors import ConfigError
from toolrec.recommenders.config import FitConfig, RecommendersConfig, TransformerConfig


def sasrec_demo() -> RecommendersConfig:
    """SASRec for the demo's data set (about 1,000 users, 500 items): under a minute on 2 cores, encoders included."""
    fit = FitConfig(learning_rate=3e-3, batch_size=32, max_epochs=24, patience=6)
    return RecommendersConfig(
        backbone=TransformerConfig(width=64, num_layers=2, num_heads=2, dropout=0.2),
        backbone_fit=fit,
        encoder=TransformerConfig(width=32, num_layers=1, num_heads=2, dropout=0.2),
        encoder_fit=fit.replaced(learning_rate=1e-3, max_epochs=8, patience=2),
    )


def sasrec_small() -> RecommendersConfig:
    """SASRec for pools of some thousand items and up to some 300,000 interactions, as ML-100K: full cross-entropy."""
    fit = FitConfig(batch_size=32, max_epochs=50, patience=8)
    return RecommendersConfig(
        model_history_length=50,
        backbone=TransformerConfig(width=128, num_layers=2, num_heads=2, dropout=0.4, attention_dropout=0.4),
        backbone_fit=fit,
        encoder=TransformerConfig(width=32, num_layers=1, num_heads=2, dropout=0.3),
        encoder_fit=fit.replaced(max_epochs=12, patience=3),
    )


def sasrec_strong() -> RecommendersConfig:
    """SASRec for up to millions of interactions, as ML-1M: softmax over sampled negatives, histories of 200."""
    fit = FitConfig(loss="sampled_softmax", num_negatives=512, batch_size=32, averaging=0.997, decay_patience=4, patience=12)
    return RecommendersConfig(
        model_history_length=200,
        backbone=TransformerConfig(width=128, num_layers=2, num_heads=2, dropout=0.2),
        backbone_fit=fit,
        encoder_fit=fit.replaced(max_epochs=5, decay_patience=0, patience=2),
    )


def bert4rec_strong() -> RecommendersConfig:
    """BERT4Rec for up to millions of interactions: full cross-entropy at masked positions, histories of 200."""
    fit = FitConfig(batch_size=32, averaging=0.997, decay_patience=6, max_epochs=400, patience=20)
    return RecommendersConfig(
        model_history_length=200,
        backbone_kind="bert4rec",
        backbone=TransformerConfig(width=128, num_layers=2, num_heads=2, dropout=0.1),
        backbone_fit=fit,
        mask_share=0.15,
        encoder_fit=FitConfig(loss="sampled_softmax", num_negatives=512, batch_size=64, max_epochs=5, patience=2),
    )


def sasrec_authors() -> RecommendersConfig:
    """SASRec as the method's authors set it: BPR with one negative; 351,872 parameters on ML-1M's 3,883 items."""
    return _authors(
        "sasrec", TransformerConfig(width=64, num_layers=2, num_heads=4, dropout=0.5, attention_dropout=0.5, norm="post"), "bpr"
    )


def bert4rec_authors() -> RecommendersConfig:
    """BERT4Rec as the method's authors set it."""
    return _authors(
        "bert4rec",
        TransformerConfig(width=64, num_layers=2, num_heads=2, dropout=0.2, attention_dropout=0.2, norm="post"),
        "cross_entropy",
    )


def _authors(kind: str, backbone: TransformerConfig, loss: str) -> RecommendersConfig:
    fit = FitConfig(loss=loss, averaging=0.0, batch_size=64, max_epochs=300, patience=10)  # type: ignore[arg-type]
    return RecommendersConfig(
        model_history_length=50,
        backbone_kind=kind,  # type: ignore[arg-type]
        backbone=backbone,
        backbone_fit=fit,
        encoder=backbone.replaced(width=100),
        encoder_fit=fit,
        mask_share=0.2,
    )


RECIPES: dict[str, Callable[[], RecommendersConfig]] = {
    recipe.__name__: recipe
    for recipe in (sasrec_demo, sasrec_small, sasrec_strong, bert4rec_strong, sasrec_authors, bert4rec_authors)
}
"""All recipes by name."""


def recipe_named(name: str) -> RecommendersConfig:
    """The recipe of a name.

    Raises:
        ConfigError: there is none.
    """
    if name not in RECIPES:
        raise ConfigError("unknown recipe", value=name, allowed=list(RECIPES))
    return RECIPES[name]()


def default_config(*, num_items: int, num_interactions: int) -> RecommendersConfig:
    """The recipe that fits a data set of this size."""
    if num_items <= 1000 and num_interactions <= 50_000:
        return sasrec_demo()
    if num_items <= 5000 and num_interactions <= 300_000:
        return sasrec_small()
    return sasrec_strong()
