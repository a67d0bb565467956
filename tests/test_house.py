"""Rules of the house that a test can keep."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that are loaded after `statement`, in a fresh interpreter."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("statement", ["import toolrec", "import toolrec.cli; toolrec.cli.build_app()", "import toolrec.config"])
def test_importing_the_package_loads_nothing_heavy(statement: str):
    assert not loaded_by(statement) & {"torch", "ray", "openai", "pandas", "pyarrow", "scipy", "matplotlib"}


def test_the_surrogate_runs_without_ray_and_without_torch():
    assert not loaded_by("import toolrec.surrogate, toolrec.tools.local, toolrec.tools.rank") & {"torch", "ray", "openai"}


@pytest.mark.parametrize("name", ["data", "evaluation", "llm", "recommenders", "surrogate"])
def test_a_room_exports_what_it_says_and_nothing_else(name: str):
    room = importlib.import_module(f"toolrec.{name}")
    for exported in room.__all__:
        assert getattr(room, exported) is not None
    public = {n for n, value in vars(room).items() if not n.startswith("_") and not isinstance(value, types.ModuleType)}
    assert public - {"annotations", "TYPE_CHECKING", "Any"} <= set(room.__all__)


def test_every_script_that_make_runs_is_there():
    paths = re.findall(r"\bpython ([a-z_/]+\.py)", (ROOT / "Makefile").read_text())
    assert paths
    for path in paths:
        assert (ROOT / path).is_file(), path


def test_no_key_is_a_field_of_any_configuration():
    from toolrec.config import RunConfig
    from toolrec.recommenders import RecommendersConfig
    from toolrec.serving.config import AppConfig
    from toolrec.util.settings import declared_in

    for tree in (RunConfig, RecommendersConfig, AppConfig):
        assert not [one.key for one in declared_in(tree) if one.key.endswith("key")]
