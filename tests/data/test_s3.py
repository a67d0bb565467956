"""Files of a source at `s3://`, against an S3-compatible server on this machine."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import Result

from toolrec.data import load_dataset
from toolrec.errors import InputError

s3fs = pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")

Cli = Callable[..., Result]


def clicks() -> pd.DataFrame:
    rows = [(f"u{user}", f"i{item}", 1_600_000_000 + item) for user in range(1, 13) for item in range(1, 16)]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])


def books() -> pd.DataFrame:
    return pd.DataFrame({"item_id": [f"i{n}" for n in range(1, 16)], "title": [f"Book {n}" for n in range(1, 16)]})


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem()
    files.makedirs("shop", exist_ok=True)  # buckets outlive a server in the same process
    yield files
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_files_of_a_bucket(bucket: Any, cli: Cli, tmp_path: Path) -> None:
    parquet = io.BytesIO()
    clicks().to_parquet(parquet, index=False)
    bucket.pipe("shop/clicks.parquet", parquet.getvalue())
    bucket.pipe("shop/books.csv.gz", gzip.compress(books().to_csv(index=False).encode()))
    half = len(clicks()) // 2
    for number, part in enumerate((clicks()[:half], clicks()[half:])):
        bucket.pipe(f"shop/parts/part-{number}.csv", part.to_csv(index=False).encode())
    for name, source in (("one", "s3://shop/clicks.parquet"), ("parts", "s3://shop/parts")):
        result = cli("prepare", "--interactions", source, "--items", "s3://shop/books.csv.gz", "--out", tmp_path / name)
        assert result.exit_code == 0, result.exception
        dataset = load_dataset(tmp_path / name)
        assert (dataset.num_users, dataset.num_items, len(dataset.items)) == (12, 15, 180)
        assert dataset.pool.titles[1] == "Book 1"


def test_what_is_not_there(bucket: Any, cli: Cli, tmp_path: Path) -> None:
    for source in ("s3://shop/none.csv", "s3://nowhere/clicks.csv"):
        result = cli("prepare", "--interactions", source, "--out", tmp_path / "out")
        assert isinstance(result.exception, InputError) and source in str(result.exception), result.exception
        assert not (tmp_path / "out").exists()
