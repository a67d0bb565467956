"""Fits score fusion and the ranker on the validation split, with frozen members; test is never read.

Shape suffixes: U users, F features, N candidates of all users.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from toolrec.data import Dataset
from toolrec.errors import ConfigError
from toolrec.progress import track
from toolrec.recommenders.base import FUSION_CONSTANT, SCORE_DECIMALS
from toolrec.recommenders.candidates import Candidates
from toolrec.recommenders.fusion import LIST_LENGTH as FUSED_LENGTH
from toolrec.recommenders.fusion_parts import FusionParts, fusion_parts
from toolrec.recommenders.learned_fusion import FUSION, RANKER, SCORE_FUSION, score_fusion_features
from toolrec.recommenders.listwise import Examples
from toolrec.recommenders.listwise_fitting import ListwiseConfig, ListwiseFit, ListwiseShape, fit_listwise
from toolrec.recommenders.scoring import BLOCK_HISTORIES, ScoringRecommender
from toolrec.recommenders.validation import mean_ndcg

NOT_LISTED = 1_000_000
"""A position beyond every list."""

MAX_SCORES = 3_000_000_000
"""Users times items that are scored for a fit at most, so that a large pool does not take hours."""

MIN_USERS = 1000
"""So many users are scored however large the pool is."""

MAX_USERS = 30_000
"""Validation users that fusions are fitted on at most: a fixed sample of larger data sets."""


def default_score_fusion() -> ListwiseConfig:
    """One weight a tool: a linear model."""
    return ListwiseConfig(shapes=(ListwiseShape(num_hidden=0, weight_decay=0.0),))


def default_ranker() -> ListwiseConfig:
    """Linear, or a few hidden units."""
    return ListwiseConfig(
        shapes=(
            ListwiseShape(num_hidden=0),
            ListwiseShape(num_hidden=16, weight_decay=0.1),
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionConfig:
    """How both learned fusions are fitted; `max_users` bounds time and memory on large data sets."""

    score_fusion: ListwiseConfig
    ranker: ListwiseConfig
    max_users: int = MAX_USERS

    def __post_init__(self) -> None:
        if self.max_users < 2:
            raise ConfigError("fusions need two validation users", value=self.max_users)


def default_fusion_config() -> FusionConfig:
    """What `toolrec train` fits."""
    return FusionConfig(score_fusion=default_score_fusion(), ranker=default_ranker())


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedFusions:
    """The fits by name, and validation NDCG@10 of every fusion, the learned ones' cross-validated.

    Args:
        tools: names of the recommenders that they fuse, in order.
        fits: score fusion and the ranker.
        ndcg_at_10: of reciprocal rank fusion and of both, over `num_users` validation users.
    """

    tools: tuple[str, ...]
    fits: Mapping[str, ListwiseFit]
    ndcg_at_10: Mapping[str, float]
    num_users: int
    feature_names: tuple[str, ...]


def fit_fusions(
    dataset: Dataset, recommenders: Mapping[str, ScoringRecommender], config: FusionConfig | None = None
) -> FittedFusions | None:
    """Fits score fusion and the ranker on validation targets; history and target as validation has them.

    Args:
        recommenders: all of a folder, frozen; popularity is left out of the tools.

    Returns:
        The fits, or None where fewer users than folds have their target on a member's list.
    """
    config = config or default_fusion_config()
    collected = collect_examples(dataset, fusion_parts(dataset, recommenders), config)
    if len(collected.ranker.target) < max(config.score_fusion.num_folds, config.ranker.num_folds):
        return None
    with track("fusions: fitting", total=config.score_fusion.num_fits + config.ranker.num_fits, unit="fits") as progress:
        fits = {
            SCORE_FUSION: fit_listwise(collected.score_fusion, config.score_fusion, progress=progress),
            RANKER: fit_listwise(collected.ranker, config.ranker, progress=progress),
        }
    learned = {name: fit.cross_validated_ndcg_at_10 for name, fit in fits.items()}
    return FittedFusions(
        tools=collected.tools,
        fits=fits,
        ndcg_at_10={FUSION: collected.fused_ndcg_at_10, **learned},
        num_users=collected.ranker.num_users,
        feature_names=collected.feature_names,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedExamples:
    """What both learned fusions are fitted on, and how reciprocal rank fusion does for the same users."""

    tools: tuple[str, ...]
    score_fusion: Examples
    ranker: Examples
    feature_names: tuple[str, ...]
    fused_ndcg_at_10: float


def collect_examples(dataset: Dataset, parts: FusionParts, config: FusionConfig) -> CollectedExamples:
    """Scores the validation users' histories, each member once."""
    limit = min(config.max_users, max(MIN_USERS, MAX_SCORES // dataset.num_items))
    users = dataset.sample_users(limit if limit < dataset.num_users else None, 0)
    collector = _Collector(parts)
    with track("fusions: scoring validation users", total=len(users), unit="users") as progress:
        for start in range(0, len(users), BLOCK_HISTORIES):
            block = users[start : start + BLOCK_HISTORIES]
            collector.add(dataset, block)
            progress.advance(len(block))
    score_fusion, ranker = collector.examples(num_users=len(users))
    return CollectedExamples(
        tools=tuple(parts.tools),
        score_fusion=score_fusion,
        ranker=ranker,
        feature_names=parts.maker.names,
        fused_ndcg_at_10=mean_ndcg(np.array(collector.fused_position)),
    )


class _Collector:
    """Features of the users whose target is a candidate, and everyone's position under reciprocal rank fusion."""

    def __init__(self, parts: FusionParts) -> None:
        self.parts = parts
        self.score_rows: list[np.ndarray] = []
        self.ranker_rows: list[np.ndarray] = []
        self.items: list[np.ndarray] = []
        self.target: list[int] = []
        self.fused_position: list[int] = []

    def add(self, dataset: Dataset, users: np.ndarray) -> None:
        """Adds a block of users."""
        histories = [np.asarray(dataset.history(int(user), "valid"), dtype=np.int64) for user in users]
        filled = [place for place, history in enumerate(histories) if len(history)]
        found = self.parts.source.of([histories[place] for place in filled], mask_seen=True)
        targets = [dataset.target(int(users[place]), "valid") for place in filled]
        self.fused_position += [NOT_LISTED] * (len(users) - len(filled))
        for place, candidates, target in zip(filled, found, targets, strict=True):
            self._add(histories[place], candidates, target)

    def _add(self, history_L: np.ndarray, candidates: Candidates, target: int) -> None:
        num_tools = len(self.parts.tools)
        self.fused_position.append(_fused_position(candidates, target, num_tools=num_tools))
        row = int(np.searchsorted(candidates.item_C, target))
        if row == len(candidates.item_C) or candidates.item_C[row] != target:
            return
        self.items.append(candidates.item_C)
        self.target.append(row)
        self.score_rows.append(score_fusion_features(candidates, num_tools=num_tools).astype(np.float32))
        self.ranker_rows.append(self.parts.maker.of(history_L, candidates).astype(np.float32))

    def examples(self, *, num_users: int) -> tuple[Examples, Examples]:
        """What score fusion and the ranker are fitted on."""
        offsets = np.concatenate([[0], np.cumsum([len(items) for items in self.items])]).astype(np.int64)
        target, item_N = np.array(self.target, dtype=np.int64), np.concatenate([np.zeros(0, dtype=np.int64), *self.items])
        score, ranker = (
            Examples(
                feature_NF=np.concatenate(rows) if rows else np.zeros((0, 0), np.float32),
                offsets=offsets,
                target=target,
                item_N=item_N,
                num_users=num_users,
            )
            for rows in (self.score_rows, self.ranker_rows)
        )
        return score, ranker


def _fused_position(candidates: Candidates, target: int, *, num_tools: int) -> int:
    """The target's place under reciprocal rank fusion of the first members, as `fusion.Fusion` orders them."""
    position_CM = candidates.position_CM[:, :num_tools]
    share_C = np.where(position_CM <= FUSED_LENGTH, (FUSION_CONSTANT + 1) / (FUSION_CONSTANT + position_CM), 0.0).sum(axis=1)
    share_C = np.round(share_C, SCORE_DECIMALS)
    at_target = candidates.item_C == target
    if not share_C[at_target].any():
        return NOT_LISTED
    is_before_C = (share_C > share_C[at_target]) | ((share_C == share_C[at_target]) & (candidates.item_C < target))
    return int(is_before_C.sum()) + 1
