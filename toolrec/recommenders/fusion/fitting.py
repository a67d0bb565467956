"""Fits the learned fusions on the validation split, with frozen members; test is never read.

Shape suffixes: U users, F features, N candidates of all users.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from toolrec.data import Dataset
from toolrec.errors import ConfigError
from toolrec.recommenders.config import MAX_FUSION_USERS
from toolrec.recommenders.fusion.candidates import Candidates
from toolrec.recommenders.fusion.inputs import FusionInputs, fusion_inputs
from toolrec.recommenders.fusion.learned import FUSION, RANKER, SCORE_FUSION, TOOLS_RANKER, score_fusion_features
from toolrec.recommenders.fusion.listwise import Examples
from toolrec.recommenders.fusion.listwise_fitting import ListwiseConfig, ListwiseFit, ListwiseShape, fit_listwise
from toolrec.recommenders.fusion.rrf import LIST_LENGTH as FUSED_LENGTH
from toolrec.recommenders.fusion.rrf import reciprocal_rank_scores
from toolrec.recommenders.scoring import BLOCK_HISTORIES, ScoringRecommender
from toolrec.recommenders.training.validation import mean_ndcg
from toolrec.util.progress import track

NOT_LISTED = 1_000_000
"""A position beyond every list."""

MAX_SCORES = 3_000_000_000
"""Users times items that are scored for a fit at most, so that a large pool does not take hours."""

MIN_USERS = 1000
"""So many users are scored however large the pool is."""


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
    """How the learned fusions are fitted; `max_users` bounds time and memory on large data sets: a fixed sample of the users."""

    score_fusion: ListwiseConfig
    ranker: ListwiseConfig
    max_users: int = MAX_FUSION_USERS

    def __post_init__(self) -> None:
        if self.max_users < 2:
            raise ConfigError("fusions need two validation users", value=self.max_users)


def default_fusion_config(*, max_users: int = MAX_FUSION_USERS) -> FusionConfig:
    """What `toolrec train` fits."""
    return FusionConfig(score_fusion=default_score_fusion(), ranker=default_ranker(), max_users=max_users)


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedFusions:
    """The fits by name, and validation NDCG@10 of every fusion, the learned ones' cross-validated.

    Args:
        tools: names of the recommenders that they fuse, in order.
        fits: of every learned fusion.
        ndcg_at_10: of reciprocal rank fusion and of the learned ones, over `num_users` validation users.
        tool_ndcg_at_10: of each tool alone, over the same users.
    """

    tools: tuple[str, ...]
    fits: Mapping[str, ListwiseFit]
    ndcg_at_10: Mapping[str, float]
    tool_ndcg_at_10: Mapping[str, float]
    num_users: int
    feature_names: Mapping[str, tuple[str, ...]]


def fit_fusions(
    dataset: Dataset, recommenders: Mapping[str, ScoringRecommender], config: FusionConfig | None = None
) -> FittedFusions | None:
    """Fits score fusion and both rankers on validation targets; history and target as validation has them.

    Args:
        recommenders: all of a folder, frozen; popularity is left out of the tools.

    Returns:
        The fits, or None where fewer users than folds have their target on a member's list.
    """
    config = config or default_fusion_config()
    collected = collect_examples(dataset, fusion_inputs(dataset, recommenders), config)
    if len(collected.tools_ranker.target) < max(config.score_fusion.num_folds, config.ranker.num_folds):
        return None
    num_fits = config.score_fusion.num_fits + 2 * config.ranker.num_fits
    with track("fusions: fitting", total=num_fits, unit="fits") as progress:
        fits = {
            SCORE_FUSION: fit_listwise(collected.score_fusion, config.score_fusion, progress=progress),
            RANKER: fit_listwise(collected.ranker, config.ranker, progress=progress),
            TOOLS_RANKER: fit_listwise(collected.tools_ranker, config.ranker, progress=progress),
        }
    learned = {name: fit.cross_validated_ndcg_at_10 for name, fit in fits.items()}
    return FittedFusions(
        tools=collected.tools,
        fits=fits,
        ndcg_at_10={FUSION: collected.fused_ndcg_at_10, **learned},
        tool_ndcg_at_10=collected.tool_ndcg_at_10,
        num_users=collected.ranker.num_users,
        feature_names={
            SCORE_FUSION: collected.tools,
            RANKER: collected.feature_names,
            TOOLS_RANKER: collected.visible_names,
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedExamples:
    """What learned fusions are fitted on, and how the tools and reciprocal rank fusion do for the same users."""

    tools: tuple[str, ...]
    score_fusion: Examples
    ranker: Examples
    tools_ranker: Examples
    feature_names: tuple[str, ...]
    visible_names: tuple[str, ...]
    fused_ndcg_at_10: float
    tool_ndcg_at_10: Mapping[str, float]


def collect_examples(dataset: Dataset, inputs: FusionInputs, config: FusionConfig) -> CollectedExamples:
    """Scores the validation users' histories, each member once."""
    limit = min(config.max_users, max(MIN_USERS, MAX_SCORES // dataset.num_items))
    num_users = len(dataset.users_with_target("valid"))
    users = dataset.sample_users(limit if limit < num_users else None, 0, split="valid")
    collector = _Collector(inputs)
    with track("fusions: scoring validation users", total=len(users), unit="users") as progress:
        for start in range(0, len(users), BLOCK_HISTORIES):
            block = users[start : start + BLOCK_HISTORIES]
            collector.add(dataset, block)
            progress.advance(len(block))
    return CollectedExamples(
        tools=tuple(inputs.tools),
        score_fusion=collector.score_fusion.examples(num_users=len(users)),
        ranker=collector.ranker.examples(num_users=len(users)),
        tools_ranker=collector.tools_ranker.examples(num_users=len(users)),
        feature_names=inputs.maker.names,
        visible_names=inputs.visible.names,
        fused_ndcg_at_10=mean_ndcg(np.array(collector.fused_position)),
        tool_ndcg_at_10={
            name: mean_ndcg(np.array([positions[place] for positions in collector.tool_positions]))
            for place, name in enumerate(inputs.tools)
        },
    )


class _Rows:
    """What one fusion is fitted on: features of the users whose target is among its candidates."""

    def __init__(self) -> None:
        self.features: list[np.ndarray] = []
        self.items: list[np.ndarray] = []
        self.target: list[int] = []

    def add(self, candidates: Candidates, target: int, features: Callable[[Candidates], np.ndarray]) -> None:
        """Adds a user, unless the target is no candidate."""
        row = int(np.searchsorted(candidates.item_C, target))
        if row == len(candidates.item_C) or candidates.item_C[row] != target:
            return
        self.features.append(features(candidates).astype(np.float32))
        self.items.append(candidates.item_C)
        self.target.append(row)

    def examples(self, *, num_users: int) -> Examples:
        """All of them, of `num_users` users."""
        return Examples(
            feature_NF=np.concatenate(self.features) if self.features else np.zeros((0, 0), np.float32),
            offsets=np.concatenate([[0], np.cumsum([len(items) for items in self.items])]).astype(np.int64),
            target=np.array(self.target, dtype=np.int64),
            item_N=np.concatenate([np.zeros(0, dtype=np.int64), *self.items]),
            num_users=num_users,
        )


class _Collector:
    """Every learned fusion's rows, and everyone's position under reciprocal rank fusion."""

    def __init__(self, inputs: FusionInputs) -> None:
        self.inputs = inputs
        self.score_fusion, self.ranker, self.tools_ranker = _Rows(), _Rows(), _Rows()
        self.fused_position: list[int] = []
        self.tool_positions: list[list[int]] = []

    def add(self, dataset: Dataset, users: np.ndarray) -> None:
        """Adds a block of users."""
        histories = [np.asarray(dataset.history(int(user), "valid"), dtype=np.int64) for user in users]
        filled = [row for row, history in enumerate(histories) if len(history)]
        found = self.inputs.source.of([histories[row] for row in filled], mask_seen=True)
        targets = [dataset.target(int(users[row]), "valid") for row in filled]
        num_empty = len(users) - len(filled)
        self.fused_position += [NOT_LISTED] * num_empty
        self.tool_positions += [[NOT_LISTED] * len(self.inputs.tools)] * num_empty
        for row, candidates, target in zip(filled, found, targets, strict=True):
            self._add(histories[row], candidates, target)

    def _add(self, history_L: np.ndarray, candidates: Candidates, target: int) -> None:
        num_tools = len(self.inputs.tools)
        self.fused_position.append(_fused_position(candidates, target, num_tools=num_tools))
        self.tool_positions.append(_tool_positions(candidates, target, num_tools=num_tools))
        self.score_fusion.add(candidates, target, lambda known: score_fusion_features(known, num_tools=num_tools))
        self.ranker.add(candidates, target, lambda known: self.inputs.maker.of(history_L, known))
        visible = self.inputs.visible
        self.tools_ranker.add(visible.visible(candidates), target, lambda known: visible.of(history_L, known))


def _tool_positions(candidates: Candidates, target: int, *, num_tools: int) -> list[int]:
    """The target's position on each tool's own list."""
    row = int(np.searchsorted(candidates.item_C, target))
    if row == len(candidates.item_C) or candidates.item_C[row] != target:
        return [NOT_LISTED] * num_tools
    return [int(position) or NOT_LISTED for position in candidates.position_CM[row, :num_tools]]


def _fused_position(candidates: Candidates, target: int, *, num_tools: int) -> int:
    """The target's position under reciprocal rank fusion of the first members, as `rrf.Fusion` orders them."""
    position_CM = candidates.position_CM[:, :num_tools]
    score_C = reciprocal_rank_scores(np.where(position_CM <= FUSED_LENGTH, position_CM, 0))
    at_target = candidates.item_C == target
    if not score_C[at_target].any():
        return NOT_LISTED
    is_before_C = (score_C > score_C[at_target]) | ((score_C == score_C[at_target]) & (candidates.item_C < target))
    return int(is_before_C.sum()) + 1
