"""Cells one after the other: what is finished stays, what fails does not stop the rest, and what the tables say of it."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
import pytest
from fault_endpoint import FaultEndpoint

from toolrec.cli import run_command
from toolrec.config import CompleteConfig, RunConfig
from toolrec.data import Dataset
from toolrec.errors import RunFailedError, RunFolderError, RunStoppedError
from toolrec.evaluation import baselines
from toolrec.evaluation.baselines import RememberedLists, recommend_for
from toolrec.evaluation.statistics import Resampling, score_intervals
from toolrec.experiments import results
from toolrec.experiments.cells import Cell
from toolrec.experiments.grid import Experiment, Point, product, setting_axis
from toolrec.experiments.here import simulate_here
from toolrec.experiments.output import page_of, plot_of, print_stored, write_results
from toolrec.experiments.results import results_of
from toolrec.experiments.runner import FAILURES, Outcome, Plan, is_finished, make_plan, run_experiment
from toolrec.llm.stores.cache import WRITE_INTERVAL_S
from toolrec.pipeline import run_evaluation
from toolrec.recommenders import load_recommenders
from toolrec.runs.folder import LISTS
from toolrec.stress.histories import with_hard_histories

NUM_USERS = 6


def experiment_of(points: list[Point]) -> Experiment:
    return Experiment(
        name="tried",
        question="Does it work?",
        varies="A little.",
        points=lambda _: points,
        measures=("mean_rounds", "same_items", "injected", "tokens"),
    )


ROUNDS = product({"rounds": setting_axis("surrogate.rounds", [3, 2])})


def evaluated(config: CompleteConfig) -> None:
    run_evaluation(config, simulate_users=simulate_here, has_report=False)


@pytest.fixture(scope="module")
def base(demo_folder: Path, demo_recommenders: Path) -> RunConfig:
    return RunConfig(dataset=demo_folder, recommenders=demo_recommenders, evaluation={"users": NUM_USERS})


def plan_in(folder: Path, base: RunConfig, points: list[Point] = ROUNDS, **how: Any) -> Plan:
    return make_plan(experiment_of(points), base.replaced(run=folder, resume=folder.exists()), **how)


@pytest.fixture(scope="module")
def done(base: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Two points, each twice; the faults differ between repeats."""
    folder = tmp_path_factory.mktemp("experiments") / "done"
    spoilt = base.replaced(**{"stress.reply_fault": "invented", "stress.reply_fault_share": 0.3})
    plan = plan_in(folder, spoilt, repeats=2)
    write_results(results_of(run_experiment(plan, run_cell=evaluated)), folder)
    return plan


def refuse(config: CompleteConfig) -> None:
    raise AssertionError(f"{config.run} is run again")


def test_finished_cells_are_not_run_again(done: Plan):
    resumed = make_plan(done.experiment, done.config.replaced(resume=True), repeats=2)
    again = results_of(run_experiment(resumed, run_cell=refuse))
    stored = pd.read_parquet(done.folder / "results.parquet")
    pd.testing.assert_frame_equal(again.points, stored, check_dtype=False)


def test_the_table_compares_user_by_user_and_tells_where_variance_comes_from(done: Plan):
    points = pd.read_parquet(done.folder / "results.parquet")
    assert points["rounds"].tolist() == ["3", "2"]
    assert points["users"].tolist() == [NUM_USERS, NUM_USERS]
    assert points["cells"].tolist() == [2, 2]
    cells = pd.read_parquet(done.folder / "cells.parquet")
    means = cells.groupby("rounds", sort=False)["ndcg@10"].mean()
    np.testing.assert_allclose(points["ndcg@10"], means)
    assert points["difference"].iloc[1] == pytest.approx(means["2"] - means["3"])
    assert np.isnan(points["difference"].iloc[0])
    assert {"sd_between_users", "sd_between_repeats", "sd_within_users_over_repeats"} <= set(points)
    assert points["same_items"].iloc[0] == 1
    assert (cells["injected"] > 0).all()


def test_intervals_over_repeats_know_how_rare_hits_are_and_agree_with_the_test(done: Plan):
    points = pd.read_parquet(done.folder / "results.parquet")
    for name, row in points.set_index("rounds").iterrows():
        lists = [pd.read_parquet(cell.folder / LISTS) for cell in done.cells if cell.point.labels["rounds"] == name]
        for metric in ("ndcg@10", "recall@10"):
            value_U = np.mean([one[one["recommender"] == "surrogate"][metric].to_numpy() for one in lists], axis=0)
            low, high = score_intervals(value_U[:, None], Resampling())
            assert row[f"{metric}_low"] <= low[0] + 1e-12
            assert row[f"{metric}_high"] >= high[0] - 1e-12 > 0, "no hit of six users does not mean that there never is one"
    compared = points.iloc[1]
    assert (compared["difference_low"] <= 0 <= compared["difference_high"]) == (compared["p_value"] > 0.05)
    assert any("2 repeats" in note for note in results_of(Outcome(plan=done)).notes)


def test_files_and_page_tell_the_protocol_and_what_stands_on_one_training(done: Plan):
    names = {path.name for path in done.folder.iterdir()}
    assert FAILURES not in names
    assert {"experiment.json", "cells", "cells.csv", "results.csv", "summary.json", "plot.svg", "report.html"} <= names
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    assert "one training" in page
    assert "answer every repeat alike" in page
    assert "reply faults" in page.replace("_", " ")
    assert page.count("<svg") == 1
    assert json.loads((done.folder / "summary.json").read_text(encoding="utf-8"))["protocol"]["users"] == NUM_USERS


def test_a_stored_experiment_is_shown(done: Plan):
    from rich.console import Console

    console = Console(record=True, width=100)
    print_stored(done.folder, console)
    said = console.export_text()
    assert "Does it work?" in said
    assert "between runs (repeats or trainings)" in said


def test_another_grid_or_setting_is_refused(done: Plan):
    resumed = done.config.replaced(resume=True)
    other = make_plan(done.experiment, resumed.replaced(**{"surrogate.prompt_history_length": 3}), repeats=2)
    with pytest.raises(RunFolderError, match="prompt_history_length was 10, now 3"):
        run_experiment(other, run_cell=refuse)
    with pytest.raises(RunFolderError, match="repeats was 2, now 1"):
        run_experiment(make_plan(done.experiment, resumed), run_cell=refuse)
    with pytest.raises(RunFolderError, match="already"):
        run_experiment(make_plan(done.experiment, done.config, repeats=2), run_cell=refuse)


def test_cells_share_the_recommenders_lists_and_those_with_other_histories_or_masks_have_their_own(
    base: RunConfig, demo: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    others = {"surrogate.rounds": 2}, {"surrogate.mask_seen": False}, {"stress.histories": "short"}
    points = product({"changed": {"nothing": {}, **{next(iter(other)): other for other in others}}})
    plan = plan_in(tmp_path / "e", base, points)
    asked: list[int] = []

    def counted(*given: Any, **how: Any) -> Any:
        asked.append(len(given[2]))
        return recommend_for(*given, **how)

    monkeypatch.setattr(baselines, "recommend_for", counted)
    remembered = RememberedLists()

    def sharing(config: CompleteConfig) -> None:
        run_evaluation(config, simulate_users=simulate_here, has_report=False, remembered=remembered)

    run_experiment(plan, run_cell=sharing)
    assert asked == [NUM_USERS] * 3, "the rounds change nothing for recommenders"
    recommenders = load_recommenders(base.recommenders, demo)
    for cell in plan.cells:
        lists = pd.read_parquet(cell.folder / LISTS)
        backbone = lists[lists["recommender"] == "backbone"]
        dataset = with_hard_histories(demo, cell.config.stress)
        expected = recommend_for(
            {"backbone": recommenders["backbone"]},
            dataset,
            backbone["user_index"].tolist(),
            split="test",
            mask_seen=cell.config.surrogate.mask_seen,
        )
        assert np.array(backbone["items"].tolist()).tolist() == expected["backbone"].tolist(), cell.name


def test_a_failing_cell_does_not_stop_the_others(base: RunConfig, tmp_path: Path):
    plan = plan_in(tmp_path / "e", base)

    def failing(config: CompleteConfig) -> None:
        if config.surrogate.rounds == 3:
            raise RunFailedError("nothing works")
        evaluated(config)

    outcome = run_experiment(plan, run_cell=failing)
    assert outcome.failures == {1: "nothing works"}
    assert (plan.folder / FAILURES).is_file()
    result = results_of(outcome)
    assert result.cells["status"].tolist() == ["failed", "finished"]
    assert result.points["failed"].tolist() == [1, 0]
    assert "1 failed" in " ".join(result.notes)
    write_results(result, plan.folder)
    assert "nothing works" in page_of([(result, plot_of(result))])


def test_the_command_ends_with_exit_code_1_where_a_cell_failed_and_shows_the_others(
    base: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    grid = tmp_path / "grid.yaml"
    grid.write_text("axes: {evaluation.baselines: [['no_such_module:Mine'], []]}", encoding="utf-8")
    given = ["experiment", str(grid), str(base.dataset), "--recommenders", str(base.recommenders), "--smoke-test"]
    assert run_command([*given, "--run", str(tmp_path / "e")]) == 1
    said = capsys.readouterr()
    assert "no_such_module" in said.out
    assert "1 cell failed" in said.err
    cells = pd.read_parquet(tmp_path / "e" / "cells.parquet")
    assert cells["status"].tolist() == ["failed", "finished"]


def test_cells_of_changed_code_are_told(done: Plan, monkeypatch: pytest.MonkeyPatch):
    words = "code of toolrec was changed between cells"
    assert not any(words in note for note in results_of(Outcome(plan=done)).notes)
    monkeypatch.setattr(results, "read_manifest", lambda run: {"code": {"toolrec": run.name[:3]}})
    assert any(words in note for note in results_of(Outcome(plan=done)).notes)


def test_a_recommender_that_one_training_lacks_has_no_row(done: Plan, monkeypatch: pytest.MonkeyPatch):
    def lists_of(cell: Cell) -> Any:
        one = loaded(cell)
        return dataclasses.replace(one, lists=one.lists[one.lists["recommender"] != "fusion"]) if cell.repeat == 2 else one

    loaded = results._load
    monkeypatch.setattr(results, "_load", lists_of)
    beside = dataclasses.replace(done, experiment=dataclasses.replace(done.experiment, has_recommenders=True))
    shown = results_of(Outcome(plan=beside)).points["rounds"].tolist()
    assert shown[:2] == ["3", "2"] and any("backbone" in name for name in shown)
    assert not any("reciprocal" in name for name in shown)


@pytest.mark.parametrize("error", [RunStoppedError("the budget is spent"), KeyboardInterrupt()])
def test_a_stop_ends_the_grid_and_says_how_to_go_on(base: RunConfig, tmp_path: Path, error: BaseException, capsys):
    plan = plan_in(tmp_path / "e", base)

    def stopping(config: CompleteConfig) -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        run_experiment(plan, run_cell=stopping)
    said = str(raised.value) + capsys.readouterr().err
    assert "0 of 2 cells are finished" in said
    assert "--resume goes on" in said


def test_the_budget_is_the_experiments(base: RunConfig, tmp_path: Path):
    limits: list[int | None] = []

    def spending(config: CompleteConfig) -> None:
        limits.append(config.budget.max_tokens)
        evaluated(config.replaced(**{"budget.max_tokens": None}))

    plan = plan_in(tmp_path / "e", base.replaced(**{"budget.max_tokens": 10_000}))
    with pytest.raises(RunStoppedError, match="the experiment's budget is spent"):
        run_experiment(plan, run_cell=spending)
    assert limits == [10_000], "the first cell may spend all, and did"
    higher = plan_in(tmp_path / "e", base.replaced(**{"budget.max_tokens": 10_000_000}))
    run_experiment(higher, run_cell=spending)
    assert all(map(is_finished, higher.cells))


CHILD = """
import json, sys
from toolrec.config import RunConfig
from toolrec.experiments.grid import Experiment, Point
from toolrec.experiments.here import simulate_here
from toolrec.experiments.runner import make_plan, run_experiment
from toolrec.pipeline import run_evaluation

given, points = map(json.loads, sys.argv[1:])
experiment = Experiment(name="tried", question="", varies="", points=lambda _: [Point(**point) for point in points])
plan = make_plan(experiment, RunConfig(**given))
run_experiment(plan, run_cell=lambda config: run_evaluation(config, simulate_users=simulate_here, has_report=False))
"""


@pytest.mark.slow
def test_a_grid_of_12_cells_killed_in_the_middle_gives_the_same_tables_and_pays_for_no_reply_twice(
    base: RunConfig, tmp_path: Path
):
    points = product(
        {
            "history": setting_axis("surrogate.prompt_history_length", [10, 3]),
            "rounds": setting_axis("surrogate.rounds", [3, 2, 1]),
            "order": {"newest": {}, "shuffled": {"surrogate.shuffle_rank_candidates": 1}},
        }
    )
    experiment = dataclasses.replace(experiment_of(points), question="", varies="")

    def plan_at(folder: Path, endpoint: FaultEndpoint) -> Plan:
        llm = {"llm.base_url": endpoint.base_url, "llm.model": "toolrec-rules-1", "llm.api_key_env": "", "llm.check": False}
        llm["surrogate.protocol"] = "tools"
        return make_plan(experiment, base.replaced(run=folder, resume=folder.exists(), **llm))

    with FaultEndpoint() as endpoint:
        whole = plan_at(tmp_path / "whole", endpoint)
        expected = results_of(run_experiment(whole, run_cell=evaluated))
        asked = {messages: len(answers) for messages, answers in endpoint.log.items()}

    folder = tmp_path / "killed"

    def waits(history: str) -> bool:
        """Half of the users of the seventh cell get no answer."""
        return endpoint.is_undecided and crc32(history.encode()) % 2 == 0 and any(folder.glob("cells/007-*/manifest.json"))

    with FaultEndpoint(refused=waits) as endpoint:
        endpoint.is_undecided = True
        plan = plan_at(folder, endpoint)
        given = [json.dumps(plan.config.as_json()), json.dumps([dataclasses.asdict(point) for point in points])]
        with subprocess.Popen([sys.executable, "-c", CHILD, *given], stderr=subprocess.DEVNULL) as child:
            deadline_s, last = time.monotonic() + 240, -1
            while not endpoint.counts["undecided"] or last < endpoint.num_requests or endpoint.in_flight > NUM_USERS - 1:
                last = endpoint.num_requests
                assert child.poll() is None and time.monotonic() < deadline_s
                time.sleep(4 * WRITE_INTERVAL_S)  # and what was answered is in the cache
            child.kill()
        assert child.returncode == -signal.SIGKILL
        endpoint.is_undecided = False
        assert sum(map(is_finished, plan.cells)) == 6
        assert 0 < endpoint.counts["undecided"] < NUM_USERS
        answered = sum(map(len, endpoint.log.values()))
        assert answered < sum(asked.values())
        resumed = plan_at(folder, endpoint)
        outcome = run_experiment(resumed, run_cell=evaluated)
        assert not outcome.failures
        found = results_of(outcome)
        again = {messages: len(answers) for messages, answers in endpoint.log.items()}
    pd.testing.assert_frame_equal(found.points, expected.points)
    assert found.cells.drop(columns="cell").equals(expected.cells.drop(columns="cell"))
    assert again == asked, "every reply was paid once"
