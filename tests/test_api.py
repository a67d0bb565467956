"""The public names of `import toolrec`."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import toolrec

PUBLIC = [name for name in toolrec.__all__ if name != "__version__"]


def said_by(code: str) -> list[str]:
    """The words that a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_namespace_is_what_all_lists():
    names = said_by(
        "import toolrec, types\n"
        "for name in toolrec.__all__: getattr(toolrec, name)\n"
        "print(*(n for n, v in vars(toolrec).items() if not n.startswith('_') and not isinstance(v, types.ModuleType)))"
    )
    assert sorted(names) == sorted(PUBLIC)
    assert dir(toolrec) == sorted(toolrec.__all__)


def test_a_star_import_gives_all_of_it():
    assert set(said_by("from toolrec import *; print(*dir())")) - set(PUBLIC) == {
        "__annotations__", "__builtins__", "__doc__", "__loader__", "__name__", "__package__", "__spec__", "__version__",
    }  # fmt: skip


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(toolrec.__file__).read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name: imported.module
        for imported in ast.walk(block)
        if isinstance(imported, ast.ImportFrom)
        for alias in imported.names
    }
    assert sorted(seen) == sorted(PUBLIC)
    for name, module in seen.items():
        assert getattr(importlib.import_module(str(module)), name) is getattr(toolrec, name)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_documented(name: str):
    value = getattr(toolrec, name)
    own = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
    assert own and len(own) > 40 and not own.startswith(f"{name}("), "a dataclass's signature is no docstring"


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_functions_arguments_are_documented(name: str):
    value = getattr(toolrec, name)
    if inspect.isfunction(value):
        for argument in inspect.signature(value).parameters:
            assert f"{argument}:" in (value.__doc__ or ""), f"{name}({argument})"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = toolrec.no_such_thing


def test_reading_a_run_loads_neither_ray_nor_torch():
    loaded = said_by("import toolrec, sys; toolrec.load_run, toolrec.Run; print(*{n.partition('.')[0] for n in sys.modules})")
    assert not set(loaded) & {"ray", "torch", "openai", "scipy", "matplotlib"}


class TestPrepare:
    def test_the_demo_is_prepared_and_loaded(self, tmp_path: Path):
        dataset = toolrec.prepare("demo", out=tmp_path / "demo", users=30, items=120, seed=3)
        assert dataset.num_users == 30
        assert toolrec.load_dataset(str(tmp_path / "demo")).checksum == dataset.checksum

    def test_frames_are_prepared_without_files(self, tmp_path: Path):
        rows = [(f"u{user}", f"i{(user + step) % 7}", step) for user in range(6) for step in range(5)]
        clicks = pd.DataFrame(rows, columns=["user", "item", "time"])
        books = pd.DataFrame([(f"i{n}", f"Book {n}", "ab"[n % 2]) for n in range(7)], columns=["item", "title", "genre"])
        dataset = toolrec.prepare(interactions=clicks, items=books, out=tmp_path / "books", name="own")
        assert dataset.num_users == 6 and dataset.pool.titles[1:] == [f"Book {n}" for n in range(7)]

    def test_an_unknown_setting_or_source_is_refused_and_nothing_is_written(self, tmp_path: Path):
        for name, settings in (("demo", {"usres": 30}), ("nowhere", {}), ("demo", {"users": 0})):
            with pytest.raises(toolrec.ConfigError):
                toolrec.prepare(name, out=tmp_path / "data", **settings)
        assert not (tmp_path / "data").exists()


class TestTrain:
    def test_what_is_given_changes_the_recipe(self, demo_folder: Path, tmp_path: Path):
        short = {"recommenders.backbone_fit.max_epochs": 1, "recommenders": {"encoder_fit.max_epochs": 1, "learn_fusions": False}}
        report = toolrec.train({"dataset": demo_folder, "out": tmp_path / "recommenders", "attributes": ["genre"], **short})
        assert [member.name for member in report.members] == ["popularity", "backbone", "genre"]
        assert {member.num_epochs for member in report.members if member.name != "popularity"} == {1}
        assert (report.folder / "manifest.json").is_file()

    @pytest.mark.parametrize(
        "wrong", [{"recommender.seed": 3}, {"recommenders.seed": -1}, {"recommenders": 3}, {"device": "tpu"}]
    )
    def test_a_wrong_setting_is_refused_before_anything_is_trained(self, demo_folder: Path, tmp_path: Path, wrong: dict):
        with pytest.raises(toolrec.ConfigError):
            toolrec.train({"dataset": demo_folder, "out": tmp_path / "recommenders", **wrong})
        assert not list(tmp_path.iterdir())


class TestEvaluate:
    @pytest.fixture
    def config(self, local_ray: None, demo_folder: Path, demo_recommenders: Path, tmp_path: Path) -> dict[str, Any]:
        paths = {"dataset": demo_folder, "recommenders": demo_recommenders, "run": tmp_path / "run"}
        return {**paths, "evaluation": {"users": 8}, "tools.mode": "local"}

    def test_a_run_is_given_back_and_a_notebook_gets_the_same(self, config: dict[str, Any], tmp_path: Path):
        run = toolrec.evaluate(config)
        assert run.status == "complete" and len(run.users) == 8
        assert set(run.summary["recommender"]) >= {"surrogate", "backbone", "fusion"}

        async def cell() -> toolrec.Run:
            return toolrec.evaluate(toolrec.RunConfig(**{**config, "tools": {"mode": "local"}, "run": tmp_path / "again"}))

        del config["tools.mode"]
        again = asyncio.run(cell())
        assert again.users["final_items"].tolist() == run.users["final_items"].tolist()
        assert run.trace(int(run.users["user_index"].iloc[0])).ended_by == "finish"

    def test_a_wrong_setting_is_refused_and_nothing_is_written(self, tmp_path: Path):
        for wrong in ({}, {"dataset": tmp_path, "surogate.rounds": 3}, {"dataset": tmp_path / "none", "run": tmp_path / "run"}):
            with pytest.raises(toolrec.ToolRecError):
                toolrec.evaluate(wrong)
        assert not list(tmp_path.iterdir())

    def test_in_a_notebook_errors_come_through_too(self, tmp_path: Path):
        async def cell() -> toolrec.Run:
            return toolrec.evaluate({"dataset": tmp_path / "none", "run": tmp_path / "run"})

        with pytest.raises(toolrec.ToolRecError, match="no such data set folder"):
            asyncio.run(cell())
        assert not list(tmp_path.iterdir())
