"""How two processes share the suite: one runs all that needs the session's Ray, so that there is only one; files stay whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

TESTS = Path(__file__).resolve().parent

WITH_RAY = {
    "serving/test_application.py",
    "serving/test_mcp_tools.py",
    "simulation/test_bad_input.py",
    "simulation/test_evaluation.py",
    "simulation/test_experiment.py",
    "simulation/test_faults.py",
    "simulation/test_flow_control.py",
    "simulation/test_kills.py",
    "simulation/test_metrics.py",
    "simulation/test_money.py",
    "test_api.py",
    "test_connect.py",
    "test_examples.py",
    "test_keys.py",
    "tuning/test_sweep.py",
}
"""The files whose tests use the fixture `local_ray`."""

SLOW = {"simulation", "tuning", "surrogate", "serving", "cluster", "test_keys.py", "test_wheel.py"}
"""What starts Ray or real servers, by folder or file."""


class OneRay(LoadScopeScheduling):
    """Hands out file by file; those with the session's Ray count as one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0].removeprefix("tests/")
        return "ray" if file in WITH_RAY else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> OneRay:
    """Takes the place of what `--dist` names."""
    return OneRay(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests with Ray go first, then slow files, so that quick ones fill up the end and no process waits for the other.

    A test that starts Ray or servers and fails is run once more, and counted as `rerun` where it passes then: on a machine of two
    cores Ray's processes at times come up too late for each other.
    """
    using = {_file(item) for item in items if "local_ray" in getattr(item, "fixturenames", ())}
    if unknown := using - WITH_RAY:
        raise pytest.UsageError(f"{', '.join(sorted(unknown))} use local_ray: add them to WITH_RAY in tests/two_processes.py")
    for item in items:
        if _is_slow(item):
            item.add_marker(pytest.mark.flaky(reruns=1))
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: (_file(item) not in WITH_RAY, not _is_slow(item)))


def _is_slow(item: pytest.Item) -> bool:
    return _file(item) in WITH_RAY or not SLOW.isdisjoint(item.path.relative_to(TESTS).parts)


def _file(item: pytest.Item) -> str:
    return item.path.relative_to(TESTS).as_posix()
