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
from two_processes import pytest_collection_modifyitems, pytest_xdist_make_scheduler  # noqa: F401  # likewise

# Two processes of tests share two cores: torch threads of one would only wait for those of the other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray's processes hand their metrics over every ten seconds, and tests would wait for them.
os.environ.setdefault("RAY_metrics_report_interval_ms", "2000")
# Serve's controller looks around ten times a second, which takes a sixteenth of a core for each Ray that stands by.
os.environ.setdefault("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "0.3")
# Ray gives its workers the lowest priority but four: beside a busy test they would hardly start.
os.environ.setdefault("RAY_worker_niceness", "0")

from toolrec.data import Dataset, load_dataset

ROOT = Path(__file__).resolve().parents[1]

_QUIET = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile("default", max_examples=80, derandomize=True, deadline=None, suppress_health_check=_QUIET)
# `make fuzz`
settings.register_profile("slow", max_examples=10_000, deadline=None, suppress_health_check=_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


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
    quick = ["--epochs", "3", "--seed", "1", "--fusion-users", "50"]
    assert run_command(["train", str(demo_folder), "--out", str(out), *quick]) == 0
    return out


@pytest.fixture(scope="session")
def small_run(demo_folder: Path, demo_recommenders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few users, made without Ray."""
    from without_ray import run_without_ray

    return run_without_ray(demo_folder, demo_recommenders, tmp_path_factory.mktemp("runs") / "small", users=12)


@pytest.fixture(scope="session")
def faulty_run(demo_folder: Path, demo_recommenders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same users with an endpoint that invents items and writes malformed replies: re-asks, and users that fail."""
    from without_ray import run_without_ray

    from toolrec.llm.embedded import EmbeddedOptions

    folder = tmp_path_factory.mktemp("runs") / "faulty"
    options = EmbeddedOptions(share_invented=0.5, share_malformed=0.3)
    return run_without_ray(demo_folder, demo_recommenders, folder, users=12, options=options)


@pytest.fixture(scope="session")
def shared_application(local_ray: None, demo_folder: Path, demo_recommenders: Path) -> str:
    """The name of one served application for all tests that do not look at deploying; its route is `/NAME`."""
    from ray import serve

    from toolrec.serving.app import AppConfig, build_app

    name = "shared"
    serve.run(
        build_app(AppConfig(dataset=str(demo_folder), recommenders=str(demo_recommenders))), name=name, route_prefix=f"/{name}"
    )
    return name


@pytest.fixture(scope="session")
def ray_address(local_ray: None) -> str:
    """The session's Ray, for commands in processes of their own."""
    import ray

    address: str = ray.get_runtime_context().gcs_address
    return address


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
    os.environ["RAY_AUTH_MODE"] = "disabled"  # which start_local does not heed
    start_local(4, object_store_bytes=256 * 1024**2)
    serve.start(http_options={"host": "127.0.0.1", "port": http_port}, logging_config={"log_level": "WARNING"})
    yield

    serve.shutdown()
    ray.shutdown()
