"""Fits a small learned order of candidates by softmax loss, its size and regularisation chosen by cross-validation over users.

Shape suffixes: U users, N candidates of all of them, F features, H hidden units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolrec.errors import ConfigError
from toolrec.recommenders.fusion.listwise import Examples, ListwiseModel, mean_ndcg_at_10, standardised
from toolrec.util.progress import Progress

BATCH_USERS = 128

BLOCK_ROWS = 65_536
"""Candidates whose features are standardised at a time."""

MIN_BATCHES = 100
"""A fit has at least as many, however few users there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListwiseShape:
    """One model that may be chosen.

    Args:
        num_hidden: hidden units of one restart; 0 for a linear model.
        weight_decay: of AdamW.
        num_epochs: passes over the users; more where they make fewer than `MIN_BATCHES` batches.
    """

    num_hidden: int = 0
    weight_decay: float = 0.01
    num_epochs: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ListwiseConfig:
    """How a model is chosen and fitted.

    Args:
        shapes: tried in this order; the first of the best is taken.
        num_restarts: fits with other first weights that are averaged (one for a linear model: they would be the same).
        num_folds: of the cross-validation over users.
        learning_rate: highest of its one cycle.
        seed: of folds, first weights and batches.
    """

    shapes: tuple[ListwiseShape, ...]
    num_restarts: int = 3
    num_folds: int = 5
    learning_rate: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.shapes or self.num_restarts < 1 or self.num_folds < 2:
            raise ConfigError("a learned fusion needs a shape, a restart and two folds", value=f"{self}")

    @property
    def num_fits(self) -> int:
        """How many single fits there are, at most."""
        return len(self.shapes) * self.num_folds + (self.num_folds + 1) * self.num_restarts - self.num_folds


@dataclass(frozen=True, slots=True, kw_only=True)
class ListwiseFit:
    """A model fitted on all users, and the NDCG@10 of its like on users that they were not fitted on."""

    model: ListwiseModel
    shape: ListwiseShape
    cross_validated_ndcg_at_10: float


def fit_listwise(examples: Examples, config: ListwiseConfig, *, progress: Progress) -> ListwiseFit:
    """Chooses a shape by cross-validated NDCG@10 and fits it on all users. The process's random state is not touched."""
    folds = _Folds(_Data(examples), config, progress)
    best, best_ndcg = config.shapes[0], -1.0
    for shape in config.shapes:
        ndcg = folds.cross_validated(shape, num_restarts=1)
        if ndcg > best_ndcg:
            best, best_ndcg = shape, ndcg
    num_restarts = config.num_restarts if best.num_hidden else 1
    ndcg = folds.cross_validated(best, num_restarts=num_restarts) if num_restarts > 1 else best_ndcg
    model = folds.on_all_users(best, num_restarts=num_restarts)
    return ListwiseFit(model=model, shape=best, cross_validated_ndcg_at_10=ndcg)


class _Data:
    """Standardised features of all candidates, and the rows of any users. Scales are those of all users, folds or not."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples
        feature_NF = examples.feature_NF
        self.mean_F = feature_NF.mean(axis=0, dtype=np.float64)
        # One column at a time: a copy of all in double precision would be the largest array of the whole fit.
        self.scale_F = np.array([feature_NF[:, f].std(dtype=np.float64) for f in range(feature_NF.shape[1])])
        self.scale_F[self.scale_F < 1e-9] = 1.0  # a feature that is the same everywhere says nothing
        standard_NF = np.empty(feature_NF.shape, dtype=np.float32)
        for start in range(0, len(feature_NF), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            standard_NF[rows] = standardised(feature_NF[rows], self.mean_F, self.scale_F)
        self.standard_NF = torch.from_numpy(standard_NF)
        self.length_U = np.diff(examples.offsets)

    def of(self, users: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Features `[N, F]` of the users' candidates, whose each is `[N]`, and the rows of the targets `[U]`."""
        length_U = self.length_U[users]
        start_U = np.concatenate([[0], np.cumsum(length_U)[:-1]])
        owner_N = np.repeat(np.arange(len(users)), length_U)
        row_N = np.arange(len(owner_N)) - start_U[owner_N] + self.examples.offsets[users][owner_N]
        target_U = start_U + self.examples.target[users]
        return self.standard_NF[torch.from_numpy(row_N)], torch.from_numpy(owner_N), torch.from_numpy(target_U)


class _Folds:
    """Fits on all users but those of a fold. A shape that is chosen is not fitted again from the first weights that it had."""

    def __init__(self, data: _Data, config: ListwiseConfig, progress: Progress) -> None:
        self._data, self._config, self._progress = data, config, progress
        num_users = len(data.examples.target)
        self._fold_U = np.random.default_rng(config.seed).permutation(num_users) % config.num_folds
        self._fitted: dict[tuple[ListwiseShape, int, int], _Network] = {}

    def cross_validated(self, shape: ListwiseShape, *, num_restarts: int) -> float:
        """NDCG@10 of every user under the model that was fitted without the user's fold."""
        examples = self._data.examples
        score_N = np.zeros(len(examples.item_N))
        fold_N = self._fold_U[examples.owner_N]
        for fold in range(self._config.num_folds):
            model = self._joined([self._without(fold, shape, restart) for restart in range(num_restarts)])
            score_N[fold_N == fold] = model.score(examples.feature_NF[fold_N == fold])
        return mean_ndcg_at_10(score_N, examples)

    def on_all_users(self, shape: ListwiseShape, *, num_restarts: int) -> ListwiseModel:
        """The model that is kept."""
        users = np.arange(len(self._data.examples.target))
        return self._joined([self._fit(users, shape, restart) for restart in range(num_restarts)])

    def _without(self, fold: int, shape: ListwiseShape, restart: int) -> _Network:
        key = (shape, fold, restart)
        if key not in self._fitted:
            self._fitted[key] = self._fit(np.flatnonzero(self._fold_U != fold), shape, restart)
        return self._fitted[key]

    def _fit(self, users: np.ndarray, shape: ListwiseShape, restart: int) -> _Network:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._config.seed + restart)
            network = _Network(len(self._data.mean_F), shape.num_hidden)
            _descend(network, self._data, users, shape, self._config.learning_rate)
        self._progress.advance()
        return network

    def _joined(self, networks: Sequence[_Network]) -> ListwiseModel:
        return _joined(networks, self._data.mean_F, self._data.scale_F)


class _Network(nn.Module):
    def __init__(self, num_features: int, num_hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, 1, bias=False)
        self.hidden = nn.Linear(num_features, num_hidden) if num_hidden else None
        self.out = nn.Linear(num_hidden, 1, bias=False) if num_hidden else None
        nn.init.zeros_(self.linear.weight)
        if self.out is not None:
            nn.init.normal_(self.out.weight, std=0.01)

    def forward(self, feature_NF: Tensor) -> Tensor:
        score_N: Tensor = self.linear(feature_NF).squeeze(-1)
        if self.hidden is not None and self.out is not None:
            score_N = score_N + self.out(F.silu(self.hidden(feature_NF))).squeeze(-1)
        return score_N


def _descend(network: _Network, data: _Data, users: np.ndarray, shape: ListwiseShape, learning_rate: float) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=shape.weight_decay)
    batches_of_epoch = -(-len(users) // BATCH_USERS)
    num_epochs = max(shape.num_epochs, -(-MIN_BATCHES // batches_of_epoch))
    num_batches = num_epochs * batches_of_epoch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=num_batches + 1, pct_start=0.1)
    for _ in range(num_epochs):
        order = users[torch.randperm(len(users)).numpy()]
        for start in range(0, len(order), BATCH_USERS):
            feature_NF, owner_N, target_U = data.of(order[start : start + BATCH_USERS])
            loss = _softmax_loss(network(feature_NF), owner_N, target_U)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()


def _softmax_loss(score_N: Tensor, owner_N: Tensor, target_U: Tensor) -> Tensor:
    """Mean cross-entropy of every user's target among the user's own candidates, without padding."""
    empty_U = score_N.new_zeros(len(target_U))
    highest_U = empty_U.scatter_reduce(0, owner_N, score_N.detach(), "amax", include_self=False)
    total_U = empty_U.index_add(0, owner_N, (score_N - highest_U[owner_N]).exp())
    return (total_U.log() + highest_U - score_N[target_U]).mean()


def _joined(networks: Sequence[_Network], mean_F: np.ndarray, scale_F: np.ndarray) -> ListwiseModel:
    """The mean of the restarts as one model."""
    share = 1.0 / len(networks)
    linear_F = sum(share * _array(network.linear.weight)[0] for network in networks)
    inner = [network.hidden for network in networks if network.hidden is not None]
    outer = [network.out for network in networks if network.out is not None]
    return ListwiseModel(
        mean_F=mean_F,
        scale_F=scale_F,
        linear_F=np.asarray(linear_F),
        hidden_FH=np.concatenate([_array(layer.weight).T for layer in inner], axis=1) if inner else np.zeros((len(mean_F), 0)),
        bias_H=np.concatenate([_array(layer.bias) for layer in inner]) if inner else np.zeros(0),
        out_H=np.concatenate([share * _array(layer.weight)[0] for layer in outer]) if outer else np.zeros(0),
    )


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy().astype(np.float64)
