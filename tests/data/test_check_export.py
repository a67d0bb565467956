"""`data check` and `data export`, held against pandas and against reading the export back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import Result

from toolrec.data import Dataset, load_dataset
from toolrec.data.export import interactions_frame
from toolrec.errors import ConfigError

Cli = Callable[..., Result]


def test_check_says_what_pandas_says(cli: Cli, demo: Dataset, tmp_path: Path) -> None:
    result = cli("check", demo.path, "--json", "--html", tmp_path / "check.html")
    assert result.exit_code == 0, result.exception
    rows = {row["name"]: row["value"] for row in json.loads(result.stdout)["rows"]}
    frame = interactions_frame(demo)
    counts = frame["item_id"].value_counts()
    assert rows["users"] == str(frame["user_id"].nunique()) and rows["items"] == str(frame["item_id"].nunique())
    top = max(1, int(0.1 * len(counts)))
    assert rows["interactions with the 10% most popular items"] == f"{counts.iloc[:top].sum() / counts.sum():.1%}"
    sorted_counts = np.sort(counts.to_numpy())
    spread = np.abs(sorted_counts[:, None] - sorted_counts[None, :]).mean()
    assert rows["Gini coefficient"] == f"{spread / (2 * counts.mean()):.2f}"
    train = frame[frame["split"] == "train"]
    test = frame[frame["split"] == "test"]
    assert (
        rows["test targets that training never saw"] == f"{(~test['item_id'].isin(train['item_id'])).mean():.1%} of {len(test):,}"
    )
    latest = np.array([(train["timestamp"] > time).mean() for time in test["timestamp"]]).mean()
    assert rows["training interactions later than the test target, on average"] == f"{latest:.1%}"


def test_check_page_is_one_file_and_escapes_names(cli: Cli, tmp_path: Path) -> None:
    rows = [f"u{user},i{item},{10**9 + item}" for user in range(4) for item in range(6)]
    (tmp_path / "c.csv").write_text("user,item,time\n" + "\n".join(rows))
    (tmp_path / "i.csv").write_text("item,title,a&b$\n" + "\n".join(f"i{n},T{n},<script>{n % 2}" for n in range(6)))
    assert (
        cli("prepare", "--interactions", tmp_path / "c.csv", "--items", tmp_path / "i.csv", "--out", tmp_path / "d").exit_code
        == 0
    )
    result = cli("check", tmp_path / "d")
    assert result.exit_code == 0, result.exception
    page = (tmp_path / "d-check.html").read_text()
    assert "<script" not in page and "http" not in page.replace("data:image", "") and page.count("data:image/png;base64") == 4
    assert "a&amp;b$" in page and "Verdict" in page
    assert (
        sorted(file.name for file in (tmp_path / "d").iterdir())[0] == "interactions.parquet"
    )  # nothing is put into the data set


def test_recbole_export_reads_back_the_same(cli: Cli, demo: Dataset, tmp_path: Path) -> None:
    assert cli("export", demo.path, "--format", "recbole", "--out", tmp_path / "rb").exit_code == 0
    result = cli("prepare", "recbole", "--source", tmp_path / "rb", "--out", tmp_path / "again",
                 "--attributes", "genre:categories,release_year:number,mood")  # fmt: skip
    assert result.exit_code == 0, result.exception
    again = load_dataset(tmp_path / "again")
    assert again.user_ids == demo.user_ids and again.pool.item_ids == demo.pool.item_ids and again.pool.titles == demo.pool.titles
    np.testing.assert_array_equal(again.items, demo.items)
    for name in demo.pool.attributes:
        for index in range(1, demo.num_items + 1):
            assert again.pool.values(name, index) == demo.pool.values(name, index)


def test_parquet_and_rectools_exports(cli: Cli, demo: Dataset, tmp_path: Path) -> None:
    for kind in ("parquet", "rectools"):
        assert cli("export", demo.path, "--format", kind, "--out", tmp_path / kind).exit_code == 0
    plain = pd.read_parquet(tmp_path / "parquet" / "interactions.parquet")
    assert plain["split"].value_counts().to_dict() == {
        "train": len(demo.items) - 2 * demo.num_users, "valid": demo.num_users, "test": demo.num_users
    }  # fmt: skip
    last = plain.groupby("user_id", sort=False)["item_id"].last()
    targets = demo.targets("test")
    assert last.tolist() == [demo.pool.item_ids[targets[demo.user_index_of(user)]] for user in last.index]
    frame = pd.read_parquet(tmp_path / "rectools" / "interactions.parquet")
    assert {"user_id", "item_id", "weight", "datetime"} <= set(frame.columns) and str(frame["datetime"].dtype).startswith(
        "datetime64"
    )
    assert frame.groupby("user_id")["datetime"].is_monotonic_increasing.all()
    features = pd.read_parquet(tmp_path / "rectools" / "item_features.parquet")
    assert list(features.columns) == ["id", "feature", "value"] and set(features["feature"]) == set(demo.pool.attributes)
    with pytest.raises(ConfigError, match="something is already there"):
        raise cli("export", demo.path, "--format", "parquet", "--out", tmp_path / "parquet").exception or AssertionError
    assert isinstance(cli("export", demo.path, "--format", "csv", "--out", tmp_path / "x").exception, ConfigError)
