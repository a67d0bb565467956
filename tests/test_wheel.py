"""The wheel: what it holds, and the whole job from an empty folder in an environment that knows no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import MARK, ROOT, left_behind, summary_of

from toolrec.runs.folder import read_manifest


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A copy: a build in the checkout leaves modules behind that a later wheel would take in.
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    shutil.copytree(ROOT / "toolrec", source / "toolrec", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(place), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    [built] = place.glob("*.whl")
    return built


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel and an empty folder to work in."""

    python: Path
    folder: Path

    def run(self, *command: str, **environment: str) -> str:
        done = subprocess.run(
            [str(self.python), *command],
            cwd=self.folder,
            env={**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def toolrec(self, *arguments: str, **environment: str) -> str:
        """Runs the installed command."""
        return self.run(str(self.python.with_name("toolrec")), *arguments, **environment)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel beside the packages that this Python has; a path file there is not followed, so no editable install is seen."""
    place = tmp_path_factory.mktemp("installed")
    environment, folder = place / "env", place / "empty"
    folder.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    paths = {"base": str(environment), "platbase": str(environment)}
    packages = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index"]
    # The dependencies' path may hold an editable install of the same version, which counts as installed otherwise.
    subprocess.run([*install, "--ignore-installed", str(wheel)], check=True, capture_output=True)
    return Installed(python, folder)


def test_it_holds_the_library_with_its_data_files_and_nothing_else(wheel: Path):
    inside = set(zipfile.ZipFile(wheel).namelist())
    sources = (path for path in (ROOT / "toolrec").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    wanted = {str(path.relative_to(ROOT)) for path in sources}
    assert {name for name in inside if not name.startswith("toolrec-0.1.0.dist-info/")} == wanted


@pytest.mark.timeout(1800)
def test_the_whole_job_runs_from_an_empty_folder(installed: Installed):
    place = installed.run("-c", "import toolrec; print(toolrec.__file__)")
    assert Path(place.strip()).is_relative_to(installed.python.parents[1])

    installed.toolrec("data", "prepare", "demo", "--users", "60", "--items", "120")
    installed.toolrec("train", "data/demo", "--epochs", "1", "--fusion-users", "30")
    mark = uuid.uuid4().hex
    said = installed.toolrec("evaluate", "data/demo", **{MARK: mark})
    assert "· tools: deploy" in said
    assert left_behind(mark) == []
    [run] = (installed.folder / "runs").iterdir()
    assert summary_of(run)["counts"]["ended_by"] == {"finish": 60}
    assert read_manifest(run)["settings"]["llm.model"] == "toolrec-rules-1"
    assert (run / "report.html").is_file()

    said = installed.toolrec("tune", "encoder", "data/demo", "--attribute", "genre", "--trials", "1", "--epochs", "1")
    assert "1/1 trials ended" in said
    [sweep] = [path for path in (installed.folder / "sweeps").iterdir() if (path / "summary.json").is_file()]
    assert f"{sweep.name}" in said

    # What `serve run toolrec.serving.app:build_app dataset=… recommenders=…` does before it deploys.
    built = installed.run("-c", BUILD)
    assert built.splitlines()[-1] == "ingress"
    assert {path.name for path in installed.folder.iterdir()} == {"data", "recommenders", "runs", "sweeps"}


BUILD = """
from ray._common.utils import import_attr
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary as call

words = {"dataset": "data/demo", "recommenders": "recommenders/demo", "attributes": "genre, mood"}
print(call(import_attr("toolrec.serving.app:build_app"), words)._bound_deployment.name)
"""
