"""A grid on Ray: its cells share one Ray and one application, and give what the same cells give in one process."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from toolrec.cli import run_command
from toolrec.config import RunConfig
from toolrec.experiments.files import read_grid
from toolrec.experiments.grid import Experiment
from toolrec.experiments.here import simulate_here
from toolrec.experiments.results import results_of
from toolrec.experiments.runner import make_plan, run_experiment
from toolrec.pipeline import run_evaluation

GRID = "axes: {surrogate.rounds: [3, 2]}\n"


@pytest.mark.slow
def test_a_grid_on_ray_gives_what_it_gives_in_one_process(
    shared_application: str, demo_folder: Path, demo_recommenders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    grid = tmp_path / "rounds.yaml"
    grid.write_text(GRID, encoding="utf-8")
    given = [str(demo_folder), "--recommenders", str(demo_recommenders), "--run", str(tmp_path / "e"), "--users", "8"]
    command = ["experiment", str(grid), *given, "--tools", f"attach:{shared_application}", "--actors", "1"]
    assert run_command(command) == 0
    assert run_command(command) == 2, "it is there already"
    assert run_command([*command, "--resume"]) == 0
    assert "2 of 2 cells are finished already" in capsys.readouterr().err
    assert run_command(["experiment", "show", str(tmp_path / "e")]) == 0

    config = RunConfig(dataset=demo_folder, recommenders=demo_recommenders, run=tmp_path / "h", evaluation={"users": 8})
    points = list(read_grid(grid).points)
    here = Experiment(name="here", question="", varies="", points=lambda _: points)
    plan = make_plan(here, config)
    expected = results_of(
        run_experiment(plan, run_cell=lambda c: run_evaluation(c, simulate_users=simulate_here, has_report=False))
    ).points
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "e" / "results.parquet"), expected, check_dtype=False, check_column_type=False
    )
