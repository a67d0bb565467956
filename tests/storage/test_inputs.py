"""Data sets and recommenders at URLs: fetched once for each node, checked, and again only when they change."""

from __future__ import annotations

import asyncio
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bucket_in_memory import Bucket, failing, put_folder

from toolrec.data import load_dataset
from toolrec.errors import CheckpointError, ConfigError, DataError
from toolrec.recommenders import load_recommenders, recommenders_manifest
from toolrec.storage.cache import cache_folder
from toolrec.util.urls import place_of

URL = "bucket://lab/data/demo"


def num_downloads(bucket: type[Bucket]) -> int:
    return sum(verb == "read" and not path.endswith("manifest.json") for verb, path in bucket.requests)


def test_a_data_set_is_fetched_once(bucket: type[Bucket], demo_folder: Path) -> None:
    put_folder(demo_folder, URL)
    with ThreadPoolExecutor(4) as threads:  # as the processes of a node
        datasets = list(threads.map(load_dataset, [URL] * 4))
    assert {dataset.checksum for dataset in datasets} == {load_dataset(demo_folder).checksum}
    assert str(datasets[0].path) == URL and num_downloads(bucket) == 3
    (copy,) = (cache_folder() / "folders").glob("*/demo")
    assert sorted(path.name for path in copy.iterdir()) == sorted(path.name for path in demo_folder.iterdir())


def test_a_changed_data_set_is_another_one(bucket: type[Bucket], demo_folder: Path, tmp_path: Path) -> None:
    from toolrec.cli import run_command

    put_folder(demo_folder, URL)
    before = load_dataset(URL)
    other = tmp_path / "other"
    assert run_command(["data", "prepare", "demo", "--users", "60", "--items", "120", "--out", str(other)]) == 0
    put_folder(other, URL)
    assert (before.num_users, load_dataset(URL).num_users) == (150, load_dataset(other).num_users)


def test_recommenders_come_with_their_fusions(bucket: type[Bucket], demo_folder: Path, demo_recommenders: Path) -> None:
    from toolrec.recommenders import load_fusions

    put_folder(demo_recommenders, "bucket://lab/recommenders/demo")
    place, dataset = place_of("bucket://lab/recommenders/demo"), load_dataset(demo_folder)
    loaded = load_recommenders(place, dataset)
    assert list(loaded) == list(load_recommenders(demo_recommenders, dataset))
    assert recommenders_manifest(place) == recommenders_manifest(demo_recommenders)
    assert load_fusions(place, dataset, loaded) is not None


def test_replicas_load_from_a_url(bucket: type[Bucket], demo_folder: Path, demo_recommenders: Path) -> None:
    from toolrec.serving.app import AppConfig, build_app
    from toolrec.serving.deployments import RetrievalReplica

    put_folder(demo_folder, URL)
    put_folder(demo_recommenders, "bucket://lab/recommenders/demo")
    paths = {"dataset": URL, "recommenders": "bucket://lab/recommenders/demo"}
    build_app(AppConfig(**paths))
    how = {"device": "cpu", "num_threads": 1, "max_batch_size": 4, "batch_wait_timeout_s": 0.0, "description": {}}
    replica = RetrievalReplica(*paths.values(), "genre", **how)
    ((items, _),) = asyncio.run(replica.retrieve_many([[1, 2, 3]], [5]))
    assert len(items) == 5 and not {1, 2, 3} & set(items)


def test_a_slow_bucket_is_tried_again(bucket: type[Bucket], demo_folder: Path) -> None:
    put_folder(demo_folder, URL)
    bucket.fault = failing(2, OSError(16, "Please reduce your request rate."))
    assert load_dataset(URL).num_users == 150


def test_a_truncated_download_is_noticed(bucket: type[Bucket], demo_folder: Path) -> None:
    put_folder(demo_folder, URL)
    cut = ["pool.parquet"]
    bucket.fault = lambda verb, path: "truncated" if cut and path.endswith(cut[0]) and cut.pop() else None
    assert load_dataset(URL).num_items == load_dataset(demo_folder).num_items


@pytest.mark.parametrize("always", ["truncated", "swapped"])
def test_damaged_at_the_url(bucket: type[Bucket], demo_folder: Path, tmp_path: Path, always: str) -> None:
    copied = shutil.copytree(demo_folder, tmp_path / "copied")
    if always == "swapped":
        (copied / "pool.parquet").write_bytes((copied / "users.parquet").read_bytes())
    put_folder(copied, URL)
    if always == "truncated":
        bucket.fault = lambda verb, path: "truncated" if path.endswith("pool.parquet") else None
    with pytest.raises(DataError) as caught:
        load_dataset(URL)
    assert URL in str(caught.value) and caught.value.exit_code == 2
    assert ("bytes came" if always == "truncated" else "is damaged, or was replaced") in str(caught.value)
    assert not list((cache_folder() / "folders").glob("*/demo"))


def test_weights_that_were_changed(bucket: type[Bucket], demo_folder: Path, demo_recommenders: Path) -> None:
    put_folder(demo_recommenders, URL)
    bucket.store["/lab/data/demo/backbone/weights.safetensors"].write(b"x")
    with pytest.raises(CheckpointError, match="damaged, or was replaced"):
        load_recommenders(place_of(URL), load_dataset(demo_folder))


def test_what_is_refused_at_the_start_is_bad_input(bucket: type[Bucket], demo_folder: Path) -> None:
    with pytest.raises(DataError, match=r"no manifest\.json at this URL; got: bucket://lab/data/demo"):
        load_dataset(URL)
    put_folder(demo_folder, URL)
    bucket.fault = failing(-1, PermissionError("Forbidden"))
    with pytest.raises(DataError, match=r"no permission to read here .*Forbidden.*credentials in the environment"):
        load_dataset(URL)
    bucket.fault = failing(-1, OSError(5, "We encountered an internal error."))
    with pytest.raises(DataError, match=r"did not read this within 1 s \(OSError: .*internal error"):
        load_dataset(URL)
    with pytest.raises(ConfigError, match="not known"):
        load_dataset("nosuch://lab/data")


def test_no_object_leaves_the_cache(bucket: type[Bucket], demo_folder: Path, tmp_path: Path) -> None:
    put_folder(demo_folder, URL)
    bucket.store["/lab/data/demo/../../../../outside"] = bucket.store["/lab/data/demo/manifest.json"]
    assert load_dataset(URL).num_users == 150
    assert not [path for path in tmp_path.rglob("outside")]
