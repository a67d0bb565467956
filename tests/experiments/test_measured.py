"""Cells that simulate nobody: each in a process of its own, and in the same tables, files and rules of resuming."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from toolrec.cli import run_command
from toolrec.cli.experiment import left_out
from toolrec.config import RunConfig
from toolrec.data import Dataset
from toolrec.errors import ConfigError, RunFailedError, RunFolderError
from toolrec.evaluation.baselines import recommend_for
from toolrec.evaluation.plots import PlottedPoint, plot_points
from toolrec.experiments.cells import Cell
from toolrec.experiments.grid import Experiment, Ground, Point
from toolrec.experiments.measured import COMMAND, measure_here, refuse_failure, task_of
from toolrec.experiments.named import EXPERIMENTS
from toolrec.experiments.output import page_of, plot_of, print_stored, write_results
from toolrec.experiments.results import common_protocol, results_of
from toolrec.experiments.runner import make_plan, run_experiment
from toolrec.recommenders import load_recommenders
from toolrec.runs.folder import LISTS, SUMMARY
from toolrec.util.files import write_json

NUM_USERS = 30


@pytest.fixture(scope="module")
def base(demo_folder: Path, demo_recommenders: Path) -> RunConfig:
    return RunConfig(dataset=demo_folder, recommenders=demo_recommenders, evaluation={"users": NUM_USERS})


def pools(*sizes: int) -> Experiment:
    points = [Point(labels={"items": str(size)}, settings={}, measurement={"items": size}) for size in sizes]
    return Experiment(name="pools", question="?", varies=".", points=lambda _: points, measures=("list_ms", "peak_gb"))


def here(cell: Cell) -> None:
    cell.folder.mkdir(parents=True, exist_ok=True)
    measure_here(task_of(cell))


def test_a_cell_is_measured_in_a_child_and_one_that_fails_leaves_the_rest(base: RunConfig, demo: Dataset, tmp_path: Path):
    folder = tmp_path / "e"
    plan = make_plan(pools(demo.num_items, 1), base.replaced(run=folder))
    outcome = run_experiment(plan)
    assert list(outcome.failures) == [2] and "fewer items" in outcome.failures[2]
    result = results_of(outcome)
    write_results(result, folder)
    assert result.cells["status"].tolist() == ["finished", "failed"]
    lists = pd.read_parquet(plan.cells[0].folder / LISTS)
    backbone = load_recommenders(base.recommenders, demo, names=["backbone"])["backbone"]
    expected = recommend_for({"backbone": backbone}, demo, lists["user_index"].tolist(), split="test")["backbone"]
    assert (np.array(lists["items"].tolist()) == expected).all(), "the pool's own size changes nothing"
    assert result.points["ndcg@10"].iloc[0] == pytest.approx(lists["ndcg@10"].mean())
    assert result.points["peak_gb"].iloc[0] > 0.05
    assert result.protocol["split"] == "test"
    asked: list[int] = []
    again = run_experiment(
        make_plan(pools(demo.num_items, 1), base.replaced(run=folder, resume=True)), measure_cell=lambda c: asked.append(c.number)
    )
    assert asked == [2], "a finished cell is not measured again"
    assert not again.failures


def test_a_table_is_of_one_training_of_the_recommenders(base: RunConfig, demo: Dataset, tmp_path: Path):
    """Finished cells are not measured again: with other weights in the same folder, rows would be of different ones."""
    given = base.replaced(run=tmp_path / "e", recommenders=tmp_path / "rec")
    shutil.copytree(base.recommenders, given.recommenders)

    def resumed(experiment: Experiment) -> None:
        config = given.replaced(resume=(tmp_path / "e").exists())
        run_experiment(make_plan(experiment, config), measure_cell=lambda cell: None)

    resumed(pools(demo.num_items))
    resumed(pools(demo.num_items))
    other = Point(labels={"items": str(demo.num_items)}, settings={}, measurement={"items": 9})
    with pytest.raises(RunFolderError, match=rf"other cells: .*items was {demo.num_items}, now 9"):
        resumed(replace(pools(demo.num_items), points=lambda _: [other]))
    manifest = given.recommenders / "manifest.json"
    write_json(manifest, {**json.loads(manifest.read_text(encoding="utf-8")), "checksum": "0" * 64})
    with pytest.raises(RunFolderError, match="trained again"):
        resumed(pools(demo.num_items))


@pytest.fixture(scope="module")
def modes(base: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two attributes, each trained in two ways for an epoch."""
    labels = [(attribute, mode) for attribute in ("genre", "release_year") for mode in ("frozen", "full")]
    points = [
        Point(
            labels={"attribute": attribute, "mode": mode},
            settings={"tools.attributes": (attribute,)},
            measurement={"attribute": attribute, "mode": mode, "learning_rates": [1e-2], "max_epochs": 1, "patience": 1},
        )
        for attribute, mode in labels
    ]
    named = EXPERIMENTS["frozen-vs-full"]
    experiment = Experiment(
        name="modes", question="?", varies=".", points=lambda _: points, measures=named.measures, within=named.within
    )
    folder = tmp_path_factory.mktemp("experiments") / "modes"
    plan = make_plan(experiment, base.replaced(run=folder))
    result = results_of(run_experiment(plan, measure_cell=here))
    write_results(result, folder)
    return plan, result


def test_each_attributes_modes_are_compared_to_its_own_frozen_one(modes: Any):
    plan, result = modes
    lists = [pd.read_parquet(cell.folder / LISTS)["ndcg@10"] for cell in plan.cells]
    differences = result.points["difference"].tolist()
    assert np.isnan([differences[0], differences[2]]).all()
    assert differences[1] == pytest.approx(lists[1].mean() - lists[0].mean())
    assert differences[3] == pytest.approx(lists[3].mean() - lists[2].mean())
    assert result.points["p_value_holm"].notna().tolist() == [False, True, False, True]
    assert result.points["parameters"].iloc[0] < result.points["parameters"].iloc[1]


def test_its_page_and_stored_table_say_what_is_compared(modes: Any):
    from rich.console import Console

    plan, result = modes
    page = page_of([(result, plot_of(result))])
    assert "first row of the same attribute" in page
    assert "learning rates" in page
    assert any("another training of the backbone" in note for note in result.notes)
    console = Console(record=True, width=110)
    print_stored(plan.folder, console)
    said = console.export_text()
    assert "first row of the same attribute" in said
    assert "trained" in said and "release_year" in said


def test_what_differs_between_cells_is_not_stated_for_all():
    assert common_protocol([{"split": "test", "max_epochs": 10}, {"split": "test", "max_epochs": 60}]) == {"split": "test"}
    assert common_protocol([]) == {}


def test_an_interval_that_holds_0_is_drawn_whole():
    def drawn(low: float) -> str:
        points = [PlottedPoint(None, None, None), PlottedPoint(0.04, low, 0.08)]
        return plot_points(["first", "second"], {"difference": points}, prefix="p")

    assert "\u22120.02" in drawn(-0.02), "the axis has ticks below 0"
    assert "\u2212" not in drawn(0.01)


def test_another_split_is_refused_before_anything_is_written(base: RunConfig, tmp_path: Path, demo: Dataset):
    with pytest.raises(ConfigError, match="test split only"):
        make_plan(pools(demo.num_items), base.replaced(**{"run": tmp_path / "e", "evaluation.split": "valid"}))
    assert not (tmp_path / "e").exists()


def test_all_experiments_on_another_split_are_those_that_can_be(base: RunConfig, tmp_path: Path):
    """One that cannot be scored there is left out of `all`, and is no reason to refuse the rest."""
    valid = base.replaced(**{"run": tmp_path / "e", "evaluation.split": "valid"})
    points = {name: EXPERIMENTS[name].points(Ground(config=valid.completed(), is_smoke=True)) for name in EXPERIMENTS}
    measured = {name for name, of in points.items() if any(point.measurement is not None for point in of)}
    assert measured == {name for name in EXPERIMENTS if left_out(name, valid, has_endpoints=True)}
    assert not [name for name in EXPERIMENTS if left_out(name, base, has_endpoints=True)]
    assert left_out("llms", base, has_endpoints=False)


def test_a_pool_beyond_all_sizes_is_refused(base: RunConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from toolrec.experiments import named

    monkeypatch.setattr(named, "POOL_SIZES", (10, 100))
    with pytest.raises(ConfigError, match="larger than all sizes"):
        make_plan(EXPERIMENTS["pool-size"], base.replaced(run=tmp_path / "e"))


def test_how_a_child_ended_is_told():
    refuse_failure(0, "")
    with pytest.raises(RunFailedError, match="no such attribute"):
        refuse_failure(2, "no such attribute\n")
    with pytest.raises(RunFailedError, match=r"killed by signal 9.*enough memory"):
        refuse_failure(-9, "")
    with pytest.raises(RunFailedError, match="exit code 1"):
        refuse_failure(1, "")


def test_a_child_ends_with_its_parent(base: RunConfig, tmp_path: Path):
    [cell] = make_plan(pools(100_000), base.replaced(run=tmp_path / "e")).cells
    cell.folder.mkdir(parents=True)
    with subprocess.Popen(
        COMMAND, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdin is not None
        child.stdin.write(f"{json.dumps(task_of(cell))}\n")
        child.stdin.close()  # as the kernel does for a parent that is killed
        assert child.wait(120) == 1
    assert not (cell.folder / SUMMARY).exists()


def test_the_peak_is_this_processes():
    def of_a_child(num_bytes: int) -> int:
        script = "import numpy as np; from toolrec.experiments.measured import peak_bytes; "
        script += f"np.ones({num_bytes // 8}); print(peak_bytes())"
        return int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)

    assert of_a_child(400_000_000) - of_a_child(8) == pytest.approx(400e6, rel=0.2)


def test_the_command_shows_it(base: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    given = ["experiment", "pool-size", str(base.dataset), "--recommenders", str(base.recommenders), "--split", "valid"]
    assert run_command([*given, "--run", str(tmp_path / "e")]) == 2
    assert "leave --split out" in capsys.readouterr().err
