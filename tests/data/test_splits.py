"""Splits beside leave-one-out: where parts end, what is refused, what training and evaluation see of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import Result

from toolrec.data import Dataset, load_dataset
from toolrec.data.check.figures import check_dataset, leakage_of
from toolrec.data.splits import NO_TARGET, SplitConfig, split_bounds
from toolrec.data.store import read_folder
from toolrec.errors import ConfigError, DataError

Cli = Callable[..., Result]
DAY = 86_400
START = 1_500_000_000


def clicks(path: Path) -> Path:
    """Three users: `early` on days 0 to 5, `late` on days 8 to 11, `both` on days 0 to 11, an item a day, i<day>."""
    days = {"early": range(6), "late": range(8, 12), "both": range(12)}
    rows = [f"{user},i{day},{START + DAY * day}" for user, spent in days.items() for day in spent]
    path.write_text("user,item,time\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture
def split(cli: Cli, tmp_path: Path) -> Callable[..., Dataset]:
    def run(*flags: object) -> Dataset:
        result = cli("prepare", "--interactions", clicks(tmp_path / "c.csv"), "--out", tmp_path / "out", "--overwrite", *flags)
        assert result.exit_code == 0, result.exception
        return load_dataset(tmp_path / "out")

    return run


def named(dataset: Dataset, items: np.ndarray) -> list[str]:
    return [dataset.pool.item_ids[item] for item in items]


def history(dataset: Dataset, user: str, part: str) -> list[str]:
    return named(dataset, dataset.history(dataset.user_index_of(user), part))  # type: ignore[arg-type]


def target(dataset: Dataset, user: str, part: str) -> str:
    return dataset.pool.item_ids[dataset.target(dataset.user_index_of(user), part)]  # type: ignore[arg-type]


def test_leave_k_out(split: Callable[..., Dataset]) -> None:
    dataset = split("--split", "leave_k_out", "--hold-out", 2)
    assert dataset.num_users == 2  # `late` has 4 of the 5 interactions that 2 + 2 held out and 1 to train need
    assert history(dataset, "early", "train") == ["i0", "i1"]
    assert (target(dataset, "early", "valid"), target(dataset, "early", "test")) == ("i2", "i4")
    assert history(dataset, "early", "test") == ["i0", "i1", "i2", "i3"]
    assert dataset.split_name == "leave-2-out, all targets" and "all of them targets" in dataset.split_words
    early, both = dataset.user_index_of("early"), dataset.user_index_of("both")
    assert named(dataset, dataset.all_targets("valid")[early]) == ["i2", "i3"]
    assert named(dataset, dataset.all_targets("test")[both]) == ["i10", "i11"]
    assert dataset.manifest["targets"]["test"]["targets"] == 4


def benchmark(folder: Path, *, order: str = "time") -> Path:
    """Two users: `a` has items 0 to 3 in training, 4 in validation, 5 to 7 in test; `b` has 0 and 1, none, and 2.

    With `order="mixed"` the training items are the latest.
    """
    folder.mkdir()
    parts = {"train": {"a": range(4), "b": range(2)}, "valid": {"a": [4]}, "test": {"a": [5, 6, 7], "b": [2]}}
    for part, items in parts.items():
        late = 100 if part == "train" and order == "mixed" else 0
        rows = [f"{user}\ti{item}\t{START + item + late}" for user, own in items.items() for item in own]
        (folder / f"x.{part}.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n" + "\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize("order", ["time", "mixed"])
def test_a_given_split_is_kept(cli: Cli, tmp_path: Path, order: str) -> None:
    source = benchmark(tmp_path / "x", order=order)
    result = cli("prepare", "recbole", "--source", source, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.exception
    dataset = load_dataset(tmp_path / "out")
    a, b = dataset.user_index_of("a"), dataset.user_index_of("b")
    assert dataset.manifest["split"] == "given" and "source's files" in dataset.split_name
    assert history(dataset, "a", "train") == ["i0", "i1", "i2", "i3"] and target(dataset, "a", "valid") == "i4"
    targets = dataset.all_targets("test")
    assert named(dataset, targets[a]) == ["i5", "i6", "i7"]
    assert named(dataset, targets[b][:1]) == ["i2"] and targets[b].tolist()[1:] == [0, 0]
    assert history(dataset, "b", "test") == ["i0", "i1"] and dataset.users_with_target("valid").tolist() == [a]
    anew = cli("prepare", "recbole", "--source", source, "--out", tmp_path / "anew", "--split", "leave_one_out")
    assert "split anew: leave one out" in anew.output


def test_a_given_split_that_is_not_there_is_refused(cli: Cli, tmp_path: Path) -> None:
    result = cli("prepare", "--interactions", clicks(tmp_path / "c.csv"), "--out", tmp_path / "out", "--split", "given")
    assert isinstance(result.exception, ConfigError) and "the source gives no split" in str(result.exception)


def test_temporal_by_time(split: Callable[..., Dataset]) -> None:
    dataset = split("--split", "temporal", "--valid-from", START + 4 * DAY, "--test-from", START + 9 * DAY)
    assert history(dataset, "early", "train") == ["i0", "i1", "i2", "i3"] == history(dataset, "both", "train")
    assert (target(dataset, "early", "valid"), target(dataset, "both", "valid")) == ("i4", "i4")
    assert target(dataset, "both", "test") == "i9" and history(dataset, "both", "test") == [f"i{day}" for day in range(9)]
    with pytest.raises(DataError, match="no target in the test split; got: early"):
        dataset.target(dataset.user_index_of("early"), "test")
    late = dataset.user_index_of("late")
    assert history(dataset, "late", "test") == ["i8"] and target(dataset, "late", "test") == "i9"
    assert [len(sequence) for sequence in dataset.train_sequences()] == [4, 4]  # `late` has nothing to train on
    test_users, valid_users = dataset.users_with_target("test"), dataset.users_with_target("valid")
    assert {dataset.user_ids[user] for user in test_users} == {"late", "both"}
    assert late not in valid_users and len(valid_users) == 2
    targets = dataset.targets("test")
    assert targets[dataset.user_index_of("early")] == 0 and dataset.pool.item_ids[targets[late]] == "i9"
    assert set(dataset.sample_users(2, 0, split="test")) == set(test_users)
    with pytest.raises(ConfigError, match="cannot draw that many users"):
        dataset.sample_users(3, 0, split="test")
    # Items of days 4 to 11 are never trained on: both test targets are cold.
    assert dataset.manifest["targets"]["test"] == {"users": 2, "users_without": 1, "cold_items": 2}
    assert dataset.manifest["targets"]["train"] == {"users_without": 1, "items_unseen": 12 - 4}


def test_temporal_by_share(split: Callable[..., Dataset]) -> None:
    dataset = split("--split", "temporal", "--valid-share", 0.2, "--test-share", 0.2)
    times = read_folder(dataset.path).interactions.timestamp
    assert times is not None
    ordered, number = np.sort(times), round(0.2 * len(times))
    assert dataset.manifest["split_settings"] == {"valid_from": ordered[-2 * number], "test_from": ordered[-number]}


def test_leakage_is_measured(split: Callable[..., Dataset]) -> None:
    dataset = split()
    check = {row.name: row for row in check_dataset(dataset).rows}
    # Targets under leave-one-out: early i5, late i11, both i11. Training: early 0-3, late 8-9, both 0-9; later than day 5 are
    # 8, 9 and 6, 7, 8, 9, so 6 of 16; nothing is later than day 11.
    later = (6 / 16 + 0 + 0) / 3
    assert check["training interactions later than the test target, on average"].value == f"{later:.1%}"
    temporal = split("--split", "temporal", "--valid-from", START + 4 * DAY, "--test-from", START + 9 * DAY)
    seconds = read_folder(temporal.path).interactions.timestamp
    assert seconds is not None
    lengths = np.diff(temporal.offsets)[1:]
    place = np.arange(len(temporal.items)) - np.repeat(temporal.offsets[1:-1], lengths)
    is_train = place < np.repeat([len(temporal.history(user, "train")) for user in range(1, temporal.num_users + 1)], lengths)
    assert leakage_of(temporal, seconds, is_train).later_share == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--split", "temporal"), "needs --valid-from and --test-from, or"),
        (("--split", "temporal", "--valid-from", "2018-01-01"), "needs --valid-from and --test-from, or"),
        (("--split", "temporal", "--valid-from", "2018-02-01", "--test-from", "2018-01-01"), "validation must begin before test"),
        (("--split", "temporal", "--valid-share", 0.6, "--test-share", 0.5), "below 1 together"),
        (
            ("--split", "temporal", "--valid-from", "2030-01-01", "--test-from", "2030-02-01"),
            "no user has a target of validation",
        ),
        (("--hold-out", 2), "--hold-out is for"),
        (("--valid-share", 0.1, "--test-share", 0.1), "are for --split temporal"),
        (("--split", "half"), "split"),
    ],
)
def test_bad_splits(cli: Cli, tmp_path: Path, flags: tuple[object, ...], message: str) -> None:
    result = cli("prepare", "--interactions", clicks(tmp_path / "c.csv"), "--out", tmp_path / "out", *flags)
    assert isinstance(result.exception, (ConfigError, DataError)) and message in str(result.exception), result.exception
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("column", ["", ",time"])
def test_temporal_needs_times(cli: Cli, tmp_path: Path, column: str) -> None:
    rows = [f"u{user},i{place}" + (f",{place + 1}" if column else "") for user in range(3) for place in range(5)]
    (tmp_path / "c.csv").write_text(f"user,item{column}\n" + "\n".join(rows) + "\n")
    shares = ("--valid-share", 0.1, "--test-share", 0.1)
    source = ("--interactions", tmp_path / "c.csv", "--out", tmp_path / "out")
    result = cli("prepare", *source, "--split", "temporal", *shares)
    assert "a temporal split needs real times" in str(result.exception)
    assert ("positions in each user's history" if column else "it has none") in str(result.exception)


@given(
    lengths=st.lists(st.integers(2, 12), min_size=1, max_size=8),
    seed=st.integers(0, 10_000),
    moments=st.tuples(st.integers(0, 60), st.integers(1, 60)),
)
def test_temporal_parts_never_overlap(lengths: list[int], seed: int, moments: tuple[int, int]) -> None:
    random = np.random.default_rng(seed)
    times = np.concatenate([np.sort(random.integers(0, 100, length)) for length in lengths]) + 1e9
    config = SplitConfig(kind="temporal", valid_from=1e9 + moments[0], test_from=1e9 + moments[0] + moments[1])
    try:
        bounds, facts = split_bounds(config, np.array(lengths), timestamps=times, timestamp_kind="unix_seconds")
    except DataError:
        return
    start = 0
    for user, length in enumerate(lengths):
        own = times[start : start + length]
        train, valid, test = bounds.train_end[user], bounds.valid_at[user], bounds.test_at[user]
        assert np.all(own[:train] < facts["valid_from"]) and np.all(own[train:] >= facts["valid_from"])
        if valid != NO_TARGET:
            assert valid == train >= 1 and facts["valid_from"] <= own[valid] < facts["test_from"]
        if test != NO_TARGET:
            assert test >= 1 and own[test] >= facts["test_from"] > own[test - 1]
        start += length


def test_leave_one_out_is_leave_one_out_of_k() -> None:
    lengths = np.array([3, 10])
    one, _ = split_bounds(SplitConfig(), lengths)
    k, _ = split_bounds(SplitConfig(kind="leave_k_out", k=1), lengths)
    assert one.test_at.tolist() == k.test_at.tolist() == [2, 9] and one.train_end.tolist() == k.train_end.tolist() == [1, 8]


def test_real_times_of_ml_1m(cli: Cli, test_data: Path, tmp_path: Path) -> None:
    """The last 20 % of the ratings have real times: from 975768739 on the split is exact."""
    path = test_data / "ml-1m-times-part.zip"
    if not path.is_file():
        pytest.skip("ml-1m-times-part.zip is not at hand (TOOLREC_TEST_DATA)")
    arguments = ("prepare", "ml-1m", "--source", path, "--out", tmp_path / "out", "--min-item-interactions", 1)
    result = cli(*arguments, "--split", "temporal", "--valid-from", 975768739, "--test-from", 990000000)
    assert result.exit_code == 0, result.exception
    dataset = load_dataset(tmp_path / "out")
    assert sum(map(len, dataset.train_sequences())) == 1_000_209 - 200_041


def test_an_item_that_is_held_out_twice_is_one_target(cli: Cli, tmp_path: Path) -> None:
    items = ["i0", "i1", "i2", "i3", "i4", "i5", "i4"]
    rows = [f"u{user},{item},{START + place}" for user in range(3) for place, item in enumerate(items)]
    (tmp_path / "c.csv").write_text("user,item,time\n" + "\n".join(rows) + "\n")
    flags = ("--repeats", "keep", "--min-item-interactions", 1, "--split", "leave_k_out", "--hold-out", 3)
    result = cli("prepare", "--interactions", tmp_path / "c.csv", "--out", tmp_path / "out", *flags)
    assert result.exit_code == 0, result.exception
    dataset = load_dataset(tmp_path / "out")
    user = dataset.user_index_of("u1")
    assert named(dataset, dataset.all_targets("test")[user][:2]) == ["i4", "i5"]
    assert dataset.all_targets("test")[user][2] == 0
    assert not any("a sure miss" in note for note in dataset.manifest.get("notes", ()))


def test_every_target_that_the_user_had_before_is_told(cli: Cli, tmp_path: Path) -> None:
    """Of `i4` and `i0`, the second was seen before."""
    items = ["i0", "i1", "i2", "i3", "i4", "i0"]
    rows = [f"u{user},{item},{START + place}" for user in range(3) for place, item in enumerate(items)]
    (tmp_path / "c.csv").write_text("user,item,time\n" + "\n".join(rows) + "\n")
    flags = ("--repeats", "keep", "--min-item-interactions", 1, "--split", "leave_k_out", "--hold-out", 2)
    result = cli("prepare", "--interactions", tmp_path / "c.csv", "--out", tmp_path / "out", *flags)
    assert result.exit_code == 0, result.exception
    notes = load_dataset(tmp_path / "out").manifest["notes"]
    assert "test targets that the user had before, a sure miss where seen items are masked: 3" in notes
