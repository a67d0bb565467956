"""Training's own figures: positions by hand, NDCG as arithmetic."""

import math

import numpy as np
import pytest
import torch

from toolrec.errors import ConfigError
from toolrec.recommenders.training.validation import ValidationSet, full_ranking, mean_ndcg, position_of_target

INF = float("inf")


@pytest.mark.parametrize(
    ("score_I", "target", "expected"),
    [
        ([-INF, 9.0, 5.0, 1.0], 1, 1),  # first
        ([-INF, 9.0, 5.0, 1.0], 3, 3),  # last
        ([-INF, 5.0, 5.0, 5.0], 2, 2),  # ties by item index
        ([-INF, 2.0, -INF, 1.0], 2, 4),  # masked: after padding and all others
    ],
)
def test_position_of_target(score_I, target, expected):
    assert position_of_target(torch.tensor([score_I]), torch.tensor([target])).tolist() == [expected]


def test_ndcg_is_its_formula():
    positions = np.array([1, 3, 10, 11])
    assert mean_ndcg(positions) == pytest.approx((1 / math.log2(2) + 1 / math.log2(4) + 1 / math.log2(11) + 0) / 4)


def test_blocks_give_what_one_user_at_a_time_gives():
    rng = np.random.default_rng(0)
    weight_ID = torch.from_numpy(rng.normal(size=(31, 4)))
    histories = [rng.permutation(30)[: rng.integers(1, 12)] + 1 for _ in range(150)]
    targets = np.array([rng.choice(np.setdiff1d(np.arange(1, 31), h)) for h in histories])

    def state_of(history_BL, last_B, places):
        assert len(places) == len(last_B) <= 64
        return weight_ID[history_BL[torch.arange(len(last_B)), last_B]]  # the last item's own embedding

    positions = full_ranking(state_of, weight_ID, ValidationSet(histories, targets), model_history_length=5)
    for history, target, position in zip(histories, targets, positions, strict=True):
        score_I = (weight_ID @ weight_ID[history[-1]]).numpy()
        score_I[[0, *history]] = -INF
        assert position == 1 + int((score_I > score_I[target]).sum())


def test_states_that_are_no_numbers_stop_with_the_reason():
    users = ValidationSet([np.array([1, 2])], np.array([3]))
    nothing = lambda history_BL, last_B, places: torch.full((1, 4), float("nan"))  # noqa: E731
    with pytest.raises(ConfigError, match="no finite numbers"):
        full_ranking(nothing, torch.ones(6, 4), users, model_history_length=5)
