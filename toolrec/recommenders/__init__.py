"""Recommenders: the SASRec backbone, attribute encoders on it, popularity, the no-LLM fusion; training and checkpoints.

What needs torch is imported when it is first named, so that the protocol and the fusion cost nothing to import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from toolrec.recommenders.base import Recommender, pad_histories, top_k
from toolrec.recommenders.config import (
    FitConfig,
    RecommendersConfig,
    TransformerConfig,
    default_config,
    demo_config,
    ml_1m_config,
    ml_100k_config,
)
from toolrec.recommenders.fusion import Fusion
from toolrec.recommenders.popularity import Popularity
from toolrec.recommenders.scoring import ScoringRecommender

if TYPE_CHECKING:
    from toolrec.recommenders.build import TrainingReport, train_recommenders
    from toolrec.recommenders.checkpoint import load_recommenders, recommenders_manifest

__all__ = [
    "FitConfig",
    "Fusion",
    "Popularity",
    "Recommender",
    "RecommendersConfig",
    "ScoringRecommender",
    "TrainingReport",
    "TransformerConfig",
    "default_config",
    "demo_config",
    "load_recommenders",
    "ml_1m_config",
    "ml_100k_config",
    "pad_histories",
    "recommenders_manifest",
    "top_k",
    "train_recommenders",
]

_WITH_TORCH = {
    "TrainingReport": "build",
    "train_recommenders": "build",
    "load_recommenders": "checkpoint",
    "recommenders_manifest": "checkpoint",
}


def __getattr__(name: str) -> Any:
    if name in _WITH_TORCH:
        return getattr(importlib.import_module(f"toolrec.recommenders.{_WITH_TORCH[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
