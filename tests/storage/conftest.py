"""A bucket in memory, and a real S3-compatible server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from bucket_in_memory import Bucket
from faulty_proxy import FaultyProxy, faulty_proxy

from toolrec.storage.cache import CACHE_VARIABLE
from toolrec.storage.remote import PATIENCE_VARIABLE


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Bucket]]:
    """An empty bucket, a cache of its own, and little patience."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv(PATIENCE_VARIABLE, "1")
    fsspec.register_implementation("bucket", Bucket, clobber=True)
    Bucket.store.clear()
    Bucket.pseudo_dirs[:] = [""]
    Bucket.requests.clear()
    Bucket.fault = None
    yield Bucket
    Bucket.fault = None


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[str, int]]:
    """A real S3-compatible server."""
    moto_server = pytest.importorskip("moto.server")
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture
def s3_proxy(s3_server: tuple[str, int]) -> Iterator[FaultyProxy]:
    """What stands before it."""
    with faulty_proxy(*s3_server) as proxy:
        yield proxy


@pytest.fixture
def s3(s3_proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Its bucket `lab`, empty, for this process and those that it starts."""
    s3fs = pytest.importorskip("s3fs")
    settings = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": s3_proxy.url,
        CACHE_VARIABLE: str(tmp_path / "cache"),
        PATIENCE_VARIABLE: "10",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem(use_listings_cache=False)
    files.makedirs("lab", exist_ok=True)
    for left in files.find("lab"):
        files.rm_file(left)
    yield files
    s3fs.S3FileSystem.clear_instance_cache()
