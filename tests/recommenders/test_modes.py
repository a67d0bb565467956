"""One attribute trained in three ways, and a backbone over a wider pool."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from toolrec.data import Dataset
from toolrec.errors import ConfigError
from toolrec.recommenders import load_recommenders, recommenders_manifest
from toolrec.recommenders.models.backbone import Backbone
from toolrec.recommenders.training.modes import MODES, ModeTraining
from toolrec.recommenders.widened import WidenedPool


@pytest.fixture(scope="module")
def backbone(demo: Dataset, demo_recommenders: Path) -> Backbone:
    found = load_recommenders(demo_recommenders, demo, names=["backbone"])["backbone"]
    assert isinstance(found, Backbone)
    return found


def histories_of(dataset: Dataset, num_users: int) -> list[list[int]]:
    return [dataset.history(user, "test").tolist() for user in range(1, num_users + 1)]


@pytest.fixture(scope="module")
def trained(demo: Dataset, demo_recommenders: Path, tmp_path_factory: pytest.TempPathFactory):
    found = {}
    for mode in MODES:
        training = ModeTraining(demo, demo_recommenders, "genre", mode, place=tmp_path_factory.mktemp(mode))
        found[mode] = training.best([1e-5, 1e-2], max_epochs=2, patience=2)
    return found


def test_the_frozen_mode_trains_the_encoder_alone_and_the_full_mode_both(trained, demo_recommenders: Path):
    parameters = {member["name"]: member["num_parameters"] for member in recommenders_manifest(demo_recommenders)["members"]}
    assert trained["frozen"].num_parameters == parameters["genre"]
    assert trained["full"].num_parameters == parameters["genre"] + parameters["backbone"]
    assert parameters["backbone"] < trained["scratch"].num_parameters < trained["full"].num_parameters


def test_only_the_frozen_mode_leaves_the_backbone_as_it_was(trained, backbone: Backbone):
    item_DI = {mode: one.recommender.item_DI for mode, one in trained.items()}
    assert torch.equal(item_DI["frozen"], backbone.item_DI)
    assert not torch.equal(item_DI["full"], backbone.item_DI)
    assert not torch.equal(item_DI["scratch"], backbone.item_DI)


def test_the_learning_rate_is_the_better_one_on_validation(demo: Dataset, demo_recommenders: Path, trained, tmp_path: Path):
    for learning_rate in (1e-5, 1e-2):
        training = ModeTraining(demo, demo_recommenders, "genre", "frozen", place=tmp_path / f"{learning_rate:g}")
        alone = training.best([learning_rate], max_epochs=2, patience=2)
        assert alone.validation_ndcg <= trained["frozen"].validation_ndcg
        if learning_rate == trained["frozen"].learning_rate:
            assert alone.validation_ndcg == trained["frozen"].validation_ndcg
            lists = [one.recommender.recommend_many(histories_of(demo, 5), k=10) for one in (alone, trained["frozen"])]
            assert lists[0] == lists[1]


def test_a_pool_of_the_same_size_gives_the_backbones_lists(demo: Dataset, backbone: Backbone):
    histories = [*histories_of(demo, 20), []]
    assert WidenedPool(backbone, demo.num_items).recommend_many(histories, k=10) == backbone.recommend_many(histories, k=10)


def test_invented_items_only_push_real_ones_down(demo: Dataset, backbone: Backbone):
    histories = histories_of(demo, 20)
    real = backbone.recommend_many(histories, k=demo.num_items)
    wide = WidenedPool(backbone, 5_000, seed=1).recommend_many(histories, k=200)
    for before, after in zip(real, wide, strict=True):
        kept = [item.item_index for item in after if item.item_index <= demo.num_items]
        assert kept == [item.item_index for item in before][: len(kept)]
        assert len(kept) < 200
        assert max(item.item_index for item in after) <= 5_000


def test_a_smaller_pools_invented_items_are_a_larger_ones_too(backbone: Backbone):
    smaller, larger = (WidenedPool(backbone, size, seed=2).item_DI for size in (1_000, 70_000))
    assert torch.equal(larger[:, :1_001], smaller)
    assert not torch.equal(WidenedPool(backbone, 1_000, seed=3).item_DI, smaller)
    assert np.isfinite(larger.numpy()).all()


def test_a_pool_cannot_be_narrowed(backbone: Backbone):
    with pytest.raises(ConfigError, match="fewer items"):
        WidenedPool(backbone, backbone.num_items - 1)
