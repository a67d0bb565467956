"""A checkerboard: users of even and of odd items, so that the right answer is obvious."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from toolrec.data import AttributeSpec, Dataset, Pool
from toolrec.data.pool import DomainWords
from toolrec.recommenders import FitConfig, RecommendersConfig, TransformerConfig, load_recommenders, train_recommenders

NUM_ITEMS = 24
NUM_USERS = 80


def make_pool(num_items: int = NUM_ITEMS) -> Pool:
    items = range(1, num_items + 1)
    return Pool(
        item_ids=["", *(f"i{i}" for i in items)],
        titles=["", *(f"Item {i}" for i in items)],
        attributes=[
            AttributeSpec(name="colour", kind="category"),
            AttributeSpec(name="tags", kind="categories"),
            AttributeSpec(name="size", kind="number"),
        ],
        values={
            "colour": [None if i == 5 else ("white" if i % 2 else "black") for i in items],
            "tags": [[] if i == 6 else [f"t{i % 2}", f"u{i % 3}"][: 1 + i % 2] for i in items],
            "size": [None if i == 7 else float(i % 2) * 100 + i for i in items],
        },
        domain=DomainWords(),
    )


def make_dataset(
    name: str = "checkerboard", checksum: str = "c" * 64, num_items: int = NUM_ITEMS, user_items: int | None = None
) -> Dataset:
    rng = np.random.default_rng(7)
    rows = []
    for user in range(NUM_USERS):
        side = np.arange(1 + user % 2, num_items + 1, 2)
        rows.append(rng.permutation(side)[: rng.integers(5, 10)][:user_items])
    return Dataset(
        path=Path("data") / name,
        manifest={"name": name, "checksum": checksum, "timestamp_kind": "none"},
        pool=make_pool(num_items),
        user_ids=["", *(f"u{u}" for u in range(1, NUM_USERS + 1))],
        offsets=np.concatenate([[0, 0], np.cumsum([len(r) for r in rows])]).astype(np.int64),
        items=np.concatenate(rows).astype(np.int32),
        ratings=None,
    )


def small_config(**fields) -> RecommendersConfig:
    fit = FitConfig(learning_rate=5e-3, batch_size=16, max_epochs=12, patience=12)
    config = RecommendersConfig(
        model_history_length=6,
        backbone=TransformerConfig(width=16, num_layers=2, num_heads=2, dropout=0.1),
        backbone_fit=fit,
        encoder=TransformerConfig(width=8, num_layers=1, num_heads=2, dropout=0.1),
        encoder_fit=fit,
        num_buckets=4,
        learn_fusions=False,
    )
    return config.replaced(**fields)


@pytest.fixture(scope="session")
def new_dataset() -> Callable[..., Dataset]:
    """Makes a checkerboard: `new_dataset(name=…, checksum=…, num_items=…, user_items=…)`."""
    return make_dataset


@pytest.fixture(scope="session")
def new_config() -> Callable[..., RecommendersConfig]:
    """Makes a configuration that trains the checkerboard in a second: `new_config(seed=…)`."""
    return small_config


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return make_dataset()


@pytest.fixture(scope="session")
def trained(dataset, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("recommenders") / "checkerboard"
    train_recommenders(dataset, small_config(learn_fusions=True), out=out)
    return out


@pytest.fixture(scope="session")
def recommenders(trained, dataset):
    return load_recommenders(trained, dataset)


@pytest.fixture(scope="session")
def bert4rec_recommenders(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("recommenders") / "bert4rec"
    train_recommenders(dataset, small_config(backbone_kind="bert4rec", mask_share=0.3), out=out)
    return load_recommenders(out, dataset)
