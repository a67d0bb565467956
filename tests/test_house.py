"""Rules of the house that a test can keep."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that are loaded after `statement`, in a fresh interpreter."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("statement", ["import toolrec", "import toolrec.cli; toolrec.cli.build_app()"])
def test_importing_the_package_loads_nothing_heavy(statement: str):
    assert not loaded_by(statement) & {"torch", "ray", "openai", "pandas", "pyarrow", "scipy", "matplotlib"}


def test_the_surrogate_runs_without_ray_and_without_torch():
    assert not loaded_by("import toolrec.surrogate, toolrec.tools.local, toolrec.tools.rank") & {"torch", "ray", "openai"}


def test_the_wheel_holds_the_library_its_templates_and_nothing_else(tmp_path: Path):
    # A copy: a build in the checkout leaves modules behind that a later wheel would take in.
    source = tmp_path / "source"
    shutil.copytree(ROOT / "toolrec", source / "toolrec", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {str(path.relative_to(ROOT)) for kind in ("*.py", "*.jinja", "py.typed") for path in (ROOT / "toolrec").rglob(kind)}
    assert {name for name in inside if not name.startswith("toolrec-0.1.0.dist-info/")} == wanted


@pytest.mark.parametrize("name", ["data", "evaluation", "llm", "recommenders", "surrogate"])
def test_a_room_exports_what_it_says_and_nothing_else(name: str):
    room = importlib.import_module(f"toolrec.{name}")
    for exported in room.__all__:
        assert getattr(room, exported) is not None
    public = {n for n, value in vars(room).items() if not n.startswith("_") and not isinstance(value, types.ModuleType)}
    assert public - {"annotations", "TYPE_CHECKING", "Any"} <= set(room.__all__)


def test_every_script_that_make_runs_is_there():
    for path in re.findall(r"\bpython ([a-z_/]+\.py)", (ROOT / "Makefile").read_text()):
        assert (ROOT / path).is_file(), path


def test_no_key_is_a_field_of_any_configuration():
    from dataclasses import fields

    from toolrec.llm import LLMConfig
    from toolrec.simulation.config import EvaluationConfig

    for config in (LLMConfig, EvaluationConfig):
        assert not [field.name for field in fields(config) if field.name.endswith("key")]


def test_the_readme_lists_every_module_with_its_own_words():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = []
    for folder in ("toolrec", "serve", "tune", "benchmarks", "examples"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            if path.name == "__init__.py" and doc is None:
                continue
            name = str(path.relative_to(ROOT)).removesuffix("__init__.py")
            words = " ".join((doc or "").split("\n\n")[0].split()).rstrip(".").replace("|", "/")
            if f"| `{name}` | {words} |" not in readme:
                missing.append(f"| `{name}` | {words} |")
    assert not missing, "\n".join(["rows that README's layout lacks:", *missing])


def test_the_readmes_commands_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    from typer.main import get_command

    from toolrec.cli import build_app

    tree = get_command(build_app())
    shown = re.findall(r"^toolrec ((?:[a-z]+ ?)+)([^\n]*)", readme, flags=re.MULTILINE)
    assert len(shown) >= 6
    for words, rest in shown:
        command = tree
        for word in words.split():
            if not hasattr(command, "commands"):
                break
            command = command.commands[word]
        known = {option for parameter in command.params for option in parameter.opts}
        for flag in re.findall(r"--[a-z-]+", rest.partition("#")[0]):
            assert flag in known, f"{words}: {flag}"
    for verb in re.findall(r"^make ([a-z]+)", readme, flags=re.MULTILINE):
        assert re.search(rf"^{verb}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), verb
