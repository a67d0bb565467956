"""A small learned order of candidates: a linear part and a few hidden units over standardised features. No torch here.

Shape suffixes: C candidates, F features, H hidden units of all restarts together.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from toolrec.metrics import ndcg_at_k

FARTHEST = 8.0
"""Standardised features are cut here: a history unlike all that were fitted cannot carry a score away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListwiseModel:
    """Scores one history's candidates; float64, the same features give the same scores.

    Several restarts are averaged by standing side by side as hidden units: their mean is one wider network.

    Args:
        mean_F: of the features that it was fitted on.
        scale_F: their standard deviations.
        linear_F: weights of the linear part.
        hidden_FH: weights into the hidden units; H is 0 for a linear model.
        bias_H: of the hidden units.
        out_H: weights out of them.
    """

    mean_F: np.ndarray
    scale_F: np.ndarray
    linear_F: np.ndarray
    hidden_FH: np.ndarray
    bias_H: np.ndarray
    out_H: np.ndarray

    def __post_init__(self) -> None:
        num_features, num_hidden = self.hidden_FH.shape
        shapes = {name: getattr(self, name).shape for name in ("mean_F", "scale_F", "linear_F")}
        if set(shapes.values()) != {(num_features,)} or self.bias_H.shape != (num_hidden,) or self.out_H.shape != (num_hidden,):
            raise ValueError(f"the tensors are of different widths: {shapes}, {self.hidden_FH.shape}, {self.bias_H.shape}")

    def score(self, feature_CF: np.ndarray) -> np.ndarray:
        """`score_C`: higher is better; only differences within one history mean anything."""
        standard_CF = standardised(feature_CF, self.mean_F, self.scale_F)
        inner_CH = standard_CF @ self.hidden_FH + self.bias_H
        score_C: np.ndarray = standard_CF @ self.linear_F + (inner_CH / (1.0 + np.exp(-inner_CH))) @ self.out_H
        return score_C

    def tensors(self) -> dict[str, np.ndarray]:
        """The arrays by name, as they are stored."""
        return {field.name: np.ascontiguousarray(getattr(self, field.name), dtype=np.float64) for field in fields(self)}


def standardised(feature_CF: np.ndarray, mean_F: np.ndarray, scale_F: np.ndarray) -> np.ndarray:
    """Features over mean and scale, cut at `FARTHEST`."""
    cut_CF: np.ndarray = np.clip((feature_CF - mean_F) / scale_F, -FARTHEST, FARTHEST)
    return cut_CF


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """The candidates of users whose target is among them, one user after the other.

    Args:
        feature_NF: float32, every candidate's features.
        offsets: user u has the rows `offsets[u]:offsets[u + 1]`.
        target: each user's target as a row of their own, counted from 0.
        item_N: item indexes, ascending within a user: ties go to the smaller one.
        num_users: all users asked, those too whose target no member listed; for them every order is a miss.
    """

    feature_NF: np.ndarray
    offsets: np.ndarray
    target: np.ndarray
    item_N: np.ndarray
    num_users: int

    @property
    def owner_N(self) -> np.ndarray:
        """The user of every row."""
        return np.repeat(np.arange(len(self.target)), np.diff(self.offsets))


def mean_ndcg_at_10(score_N: np.ndarray, examples: Examples) -> float:
    """NDCG@10 over all `num_users` of the order that the scores give."""
    if not len(examples.target):
        return 0.0
    target_row = examples.offsets[:-1] + examples.target
    at_target_N = np.repeat(score_N[target_row], np.diff(examples.offsets))
    is_smaller_N = examples.item_N < np.repeat(examples.item_N[target_row], np.diff(examples.offsets))
    is_before_N = (score_N > at_target_N) | ((score_N == at_target_N) & is_smaller_N)
    position = np.add.reduceat(is_before_N.astype(np.int64), examples.offsets[:-1]) + 1
    return float(ndcg_at_k(position, 10).sum() / examples.num_users)
