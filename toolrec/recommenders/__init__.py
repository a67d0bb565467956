"""Recommenders: SASRec and BERT4Rec backbones, attribute encoders on them, popularity, the no-LLM fusion; training, checkpoints.

What needs torch is imported when it is first named, so that the protocol and the fusion cost nothing to import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from toolrec.recommenders.base import Recommender, pad_histories, top_k
from toolrec.recommenders.config import FitConfig, RecommendersConfig, TransformerConfig
from toolrec.recommenders.fusion.rrf import Fusion
from toolrec.recommenders.popularity import Popularity
from toolrec.recommenders.recipes import (
    RECIPES,
    bert4rec_authors,
    bert4rec_strong,
    default_config,
    recipe_named,
    sasrec_authors,
    sasrec_demo,
    sasrec_small,
    sasrec_strong,
)
from toolrec.recommenders.scoring import ScoringRecommender

if TYPE_CHECKING:
    from toolrec.recommenders.checkpoint import load_recommenders, recommenders_manifest
    from toolrec.recommenders.fusion.checkpoint import load_fusions, refit_fusions
    from toolrec.recommenders.training.build import TrainingReport, train_recommenders

__all__ = [
    "RECIPES",
    "FitConfig",
    "Fusion",
    "Popularity",
    "Recommender",
    "RecommendersConfig",
    "ScoringRecommender",
    "TrainingReport",
    "TransformerConfig",
    "bert4rec_authors",
    "bert4rec_strong",
    "default_config",
    "load_fusions",
    "load_recommenders",
    "pad_histories",
    "recipe_named",
    "recommenders_manifest",
    "refit_fusions",
    "sasrec_authors",
    "sasrec_demo",
    "sasrec_small",
    "sasrec_strong",
    "top_k",
    "train_recommenders",
]

_WITH_TORCH = {
    "TrainingReport": "training.build",
    "train_recommenders": "training.build",
    "load_fusions": "fusion.checkpoint",
    "load_recommenders": "checkpoint",
    "recommenders_manifest": "checkpoint",
    "refit_fusions": "fusion.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name in _WITH_TORCH:
        return getattr(importlib.import_module(f"toolrec.recommenders.{_WITH_TORCH[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
