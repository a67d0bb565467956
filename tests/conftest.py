"""Fixtures of several rooms: a small data set, recommenders trained on it, and one Ray for the whole session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from key_marker import (  # noqa: F401  # taken in as hooks
    pytest_configure,
    pytest_runtest_logreport,
    pytest_sessionfinish,
    pytest_terminal_summary,
)

from toolrec.data import Dataset, load_dataset

ROOT = Path(__file__).resolve().parents[1]

_QUIET = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile("default", max_examples=80, derandomize=True, deadline=None, suppress_health_check=_QUIET)
# `make fuzz`
settings.register_profile("slow", max_examples=10_000, deadline=None, suppress_health_check=_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


SLOW = {"simulation", "tune", "surrogate", "serve", "test_keys.py"}
"""What starts Ray or real servers, by folder or file."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In several processes the slow files go first, so that quick ones fill up the end and none waits for the last."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: SLOW.isdisjoint(item.path.relative_to(ROOT).parts))


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder with real data sets; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("TOOLREC_TEST_DATA", ROOT / ".." / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set TOOLREC_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small demo data set on disk."""
    from toolrec.cli import run_command

    out = tmp_path_factory.mktemp("session") / "data" / "demo"
    assert run_command(["data", "prepare", "demo", "--users", "150", "--items", "120", "--seed", "3", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def demo(demo_folder: Path) -> Dataset:
    """The small demo data set."""
    return load_dataset(demo_folder)


@pytest.fixture(scope="session")
def demo_recommenders(demo_folder: Path) -> Path:
    """Recommenders trained for a few epochs on the small demo data set."""
    from toolrec.cli import run_command

    out = demo_folder.parents[1] / "recommenders" / "demo"
    assert run_command(["train", str(demo_folder), "--out", str(out), "--epochs", "3", "--seed", "1"]) == 0
    return out


@pytest.fixture(scope="session")
def http_port() -> int:
    """Where the session's Serve answers HTTP."""
    from toolrec.connect import free_port

    return free_port()


@pytest.fixture(scope="session")
def serve_url(local_ray: None, http_port: int) -> str:
    """The session's Serve."""
    return f"http://127.0.0.1:{http_port}"


@pytest.fixture(scope="session")
def local_ray(http_port: int) -> Iterator[None]:
    """One Ray on loopback for the session."""
    import ray
    from ray import serve

    from toolrec.connect import start_local

    # Replicas and actors import the application folders from the checkout.
    os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep)
    start_local(4, object_store_bytes=256 * 1024**2)
    serve.start(http_options={"host": "127.0.0.1", "port": http_port}, logging_config={"log_level": "WARNING"})
    yield

    serve.shutdown()
    ray.shutdown()
