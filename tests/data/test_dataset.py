from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolrec.data import AttributeSpec, Dataset, DomainWords, Pool, load_dataset
from toolrec.data.filters import FilterConfig
from toolrec.data.pool import format_number
from toolrec.data.prepare import prepare
from toolrec.data.raw import RawData, RawInteractions, RawItems
from toolrec.errors import ConfigError, DataError
from toolrec.grammar import ItemLine, parse_item_line, render_item_line

histories = st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=8, unique=True), min_size=1, max_size=6)


def write(histories: list[list[int]], out: Path) -> Dataset:
    """A data set of these histories; item n has the id `i<n>`."""
    interactions = RawInteractions(
        user_ids=[f"u{user}" for user in range(len(histories))],
        item_ids=[f"i{item}" for item in range(10)],
        users=np.repeat(np.arange(len(histories)), [len(history) for history in histories]),
        items=np.concatenate([np.array(history) for history in histories]),
        ratings=None,
        timestamps=None,
    )
    items = RawItems(item_ids=interactions.item_ids, titles=[f"Title {item}" for item in range(10)])
    raw = RawData(name="tiny", layout="test", interactions=interactions, items=items, domain=DomainWords(), origin={})
    prepare(raw, out, filters=FilterConfig())
    return load_dataset(out)


@given(histories)
@settings(max_examples=30, deadline=None)
def test_leave_one_out_is_disjoint_and_whole(tmp_path_factory: pytest.TempPathFactory, histories: list[list[int]]) -> None:
    dataset = write(histories, tmp_path_factory.mktemp("split") / "tiny")
    for user_index, history in enumerate(histories, start=1):
        ids = [dataset.pool.item_ids[item] for item in dataset.history(user_index, "train")]
        valid, test = (dataset.pool.item_ids[dataset.target(user_index, split)] for split in ("valid", "test"))
        assert [*ids, valid, test] == [f"i{item}" for item in history]
        assert dataset.history(user_index, "valid").tolist() == dataset.history(user_index, "train").tolist()
        assert dataset.history(user_index, "test").tolist() == [
            *dataset.history(user_index, "train"),
            dataset.target(user_index, "valid"),
        ]
        assert dataset.train_sequences()[user_index - 1].tolist() == dataset.history(user_index, "train").tolist()
    for split in ("valid", "test"):
        targets = dataset.targets(split)
        assert targets.tolist() == [0, *(dataset.target(user, split) for user in range(1, dataset.num_users + 1))]
    assert not dataset.has_ratings and not dataset.has_timestamps


@given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 2**32))
def test_samples_are_nested(demo: Dataset, few: int, many: int, seed: int) -> None:
    few, many = sorted((few, many))
    small, large = demo.sample_users(few, seed), demo.sample_users(many, seed)
    assert small.tolist() == large[:few].tolist()
    assert len(set(large.tolist())) == many and large.min() >= 1 and large.max() <= demo.num_users


def test_all_users_and_too_many(demo: Dataset) -> None:
    assert demo.sample_users(None, 3).tolist() == list(range(1, 81))
    assert sorted(demo.sample_users(80, 3).tolist()) == list(range(1, 81))
    for num in (0, 81, -1):
        with pytest.raises(ConfigError, match="1 to 80"):
            demo.sample_users(num, 3)


def test_shapes_and_types(demo: Dataset) -> None:
    assert demo.items.dtype == np.int32 and demo.offsets.dtype == np.int64
    assert len(demo.offsets) == demo.num_users + 2
    assert demo.offsets[0] == demo.offsets[1] == 0 and demo.offsets[-1] == len(demo.items)
    ratings = demo.history_ratings(1, "test")
    assert ratings is not None and ratings.dtype == np.float32 and len(ratings) == len(demo.history(1, "test"))
    assert demo.user_ids[0] == "" and demo.user_index_of(demo.user_ids[7]) == 7
    with pytest.raises(ValueError, match="read-only"):
        demo.history(1, "test")[0] = 1


@pytest.mark.parametrize("user_id", ["", "nobody"])
def test_unknown_user(demo: Dataset, user_id: str) -> None:
    with pytest.raises(DataError, match="no such user"):
        demo.user_index_of(user_id)


def test_unknown_index_and_split(demo: Dataset) -> None:
    for user_index in (0, demo.num_users + 1, -1):
        with pytest.raises(DataError, match="no such user index"):
            demo.history(user_index, "test")
    with pytest.raises(ConfigError, match="unknown split"):
        demo.history(1, "dev")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="have a target"):
        demo.target(1, "train")


@pytest.fixture
def pool() -> Pool:
    return Pool(
        item_ids=["", "a", "b", "c"],
        titles=["", "A", "B", "C"],
        attributes=[
            AttributeSpec(name="genre", kind="categories"),
            AttributeSpec(name="maker", kind="category"),
            AttributeSpec(name="year", kind="number"),
        ],
        values={"genre": [("x", "y", "x"), (), None], "maker": ["m", None, "n"], "year": [1990.0, None, 4.5]},
        domain=DomainWords(),
    )


def test_pool_values(pool: Pool) -> None:
    assert pool.num_items == 3
    assert [pool.index_of(item_id) for item_id in ("a", "c", "", "z")] == [1, 3, None, None]
    assert pool.fields(1) == (("genre", ("x", "y")), ("maker", ("m",)), ("year", ("1990",)))
    assert pool.fields(2) == ()
    assert pool.fields(3) == (("maker", ("n",)), ("year", ("4.5",)))
    assert [spec.num_values for spec in pool.attributes.values()] == [2, 2, 2]
    assert [pool.coverage(name) for name in pool.attributes] == [1 / 3, 2 / 3, 2 / 3]


def test_pool_arrays(pool: Pool) -> None:
    vocabulary, offsets, value_ids = pool.categories("genre")
    assert (vocabulary, offsets.tolist(), value_ids.tolist()) == (["", "x", "y"], [0, 0, 2, 2, 2], [1, 2])
    assert (offsets.dtype, value_ids.dtype) == (np.int64, np.int32)
    np.testing.assert_array_equal(pool.numbers("year"), [np.nan, 1990, np.nan, 4.5])
    for wrong in (lambda: pool.categories("year"), lambda: pool.numbers("genre"), lambda: pool.values("color", 1)):
        with pytest.raises(DataError):
            wrong()


def test_pool_survives_pickling(pool: Pool) -> None:
    again = pickle.loads(pickle.dumps(pool))  # noqa: S301 - our own bytes, as an actor receives them
    assert [again.fields(index) for index in (1, 2, 3)] == [pool.fields(index) for index in (1, 2, 3)]
    assert again.index_of("b") == 2


def test_every_item_of_the_demo_is_readable_in_prompts(demo: Dataset) -> None:
    for index in range(1, demo.num_items + 1):
        line = ItemLine(item_id=demo.pool.item_ids[index], title=demo.pool.titles[index], fields=demo.pool.fields(index))
        assert parse_item_line(render_item_line(line)) == line


@pytest.mark.parametrize("name", ["", "none", "None", "item_id", "title", "a,b", "a:b", "a|b", "a[b", " a", "a\n", "<a>"])
def test_attribute_names_that_prompts_cannot_carry(name: str) -> None:
    with pytest.raises(ConfigError):
        AttributeSpec(name=name, kind="category")


@pytest.mark.parametrize(
    ("number", "text"), [(1995.0, "1995"), (-3.0, "-3"), (4.5, "4.5"), (1 / 3, "0.333333"), (1e15, "1000000000000000")]
)
def test_numbers_as_people_read_them(number: float, text: str) -> None:
    assert format_number(number) == text


def test_reading_a_data_set_loads_nothing_heavy(demo_folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from toolrec.data import load_dataset; load_dataset(Path(sys.argv[1]));"
        "print([name for name in ('torch', 'ray', 'openai', 'requests') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code, str(demo_folder)], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def tamper_items(folder: Path) -> None:
    path = folder / "interactions.parquet"
    table = pq.read_table(path)
    items = table["item_index"].to_numpy().copy()
    items[[0, 1]] = items[[1, 0]]
    pq.write_table(table.set_column(1, "item_index", pa.array(items, pa.int32())), path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (tamper_items, "not that of its checksum"),
        (lambda folder: (folder / "users.parquet").unlink(), "has no users.parquet"),
        (lambda folder: (folder / "manifest.json").unlink(), "not a data set folder"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "not a JSON file"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "another schema version"),
        (lambda folder: (folder / "manifest.json").write_text('{"schema_version": 1}'), "manifest is damaged"),
        (lambda folder: (folder / "pool.parquet").write_bytes(b""), "pool.parquet cannot be read"),
        (lambda folder: (folder / "pool.parquet").write_bytes((folder / "pool.parquet").read_bytes()[:-9]), "cannot be read"),
        (lambda folder: (folder / "pool.parquet").write_bytes((folder / "users.parquet").read_bytes()), "has no column"),
    ],
)
def test_damaged_folder(demo_folder: Path, tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(demo_folder, folder)
    damage(folder)
    with pytest.raises(DataError, match=message):
        load_dataset(folder)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="toolrec data prepare"):
        load_dataset(tmp_path / "none")
