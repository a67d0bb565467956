"""Grids: named ones, those of a file, and the cells that they come to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from toolrec.cli import run_command
from toolrec.cli.experiment import NAMES
from toolrec.config import CompleteConfig, RunConfig
from toolrec.errors import ConfigError
from toolrec.experiments.cells import Cell, cells_of, training_names
from toolrec.experiments.files import read_endpoints, read_grid
from toolrec.experiments.grid import Ground, Point, product, setting_axis
from toolrec.experiments.measures import MEASURES, Seen
from toolrec.experiments.named import EXPERIMENTS, NAMED


@pytest.fixture
def config(demo_folder: Path, demo_recommenders: Path, tmp_path: Path) -> CompleteConfig:
    return RunConfig(dataset=demo_folder, recommenders=demo_recommenders, run=tmp_path / "e").completed()


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "grid.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_command_line_knows_every_experiment_and_says_two_lines_of_each(capsys: pytest.CaptureFixture[str]):
    assert tuple(one.name for one in NAMED) == NAMES
    assert run_command(["experiment", "list"]) == 0
    said = capsys.readouterr().out
    for one in NAMED:
        assert f"{one.name}\n  {one.question}\n  {one.varies}\n" in said
        assert set(one.measures) <= set(MEASURES)


@pytest.mark.parametrize("is_smoke", [True, False])
@pytest.mark.parametrize("experiment", [one for one in NAMED if one.name != "llms"], ids=lambda one: one.name)
def test_every_named_grid_gives_valid_cells(config: CompleteConfig, tmp_path: Path, experiment, is_smoke: bool):
    points = experiment.points(Ground(config=config, is_smoke=is_smoke))
    cells = cells_of(points, config, tmp_path / "e")
    assert len({cell.folder for cell in cells}) == len({cell.point.name for cell in cells}) == len(points) >= 2
    assert not set(MEASURES) & {axis for point in points for axis in point.labels}


def test_each_attribute_adds_its_encoder_where_full_fine_tuning_adds_a_backbone(config: CompleteConfig, tmp_path: Path):
    def megabytes(cell: Cell, name: str) -> float | None:
        nothing = np.zeros((0, 10))
        return MEASURES[name].of(Seen(config=cell.config, summary={}, list_BK=nothing, reference_BK=None, num_items=1))

    cells = cells_of(EXPERIMENTS["attributes"].points(Ground(config=config)), config, tmp_path / "e")
    assert [cell.config.tools.attributes for cell in cells] == [
        (),
        ("genre",),
        ("genre", "release_year"),
        ("genre", "release_year", "mood"),
    ]
    size = {
        name: (config.recommenders / folder / "weights.safetensors").stat().st_size / 1e6
        for name, folder in (("backbone", "backbone"), ("genre", "attributes/01-genre"))
    }
    assert megabytes(cells[0], "tools_mb") == megabytes(cells[0], "tuned_mb") == pytest.approx(size["backbone"])
    assert megabytes(cells[1], "tools_mb") == pytest.approx(size["backbone"] + size["genre"])
    assert megabytes(cells[1], "tuned_mb") == pytest.approx(2 * size["backbone"] + size["genre"])
    assert megabytes(cells[3], "tuned_mb") > 1.5 * megabytes(cells[3], "tools_mb")


def test_llms_wants_endpoints(config: CompleteConfig, tmp_path: Path):
    [llms] = [one for one in NAMED if one.name == "llms"]
    with pytest.raises(ConfigError, match="--endpoints"):
        llms.points(Ground(config=config))
    path = written(tmp_path, "a: {base_url: 'http://127.0.0.1:1/v1', model: a}\nb: {base_url: 'http://127.0.0.1:2/v1', model: b}")
    cells = cells_of(llms.points(Ground(config=config, endpoints=read_endpoints(path))), config, tmp_path / "e")
    assert [cell.config.llm.model for cell in cells] == ["a", "b"]


def test_a_grid_of_a_file(config: CompleteConfig, tmp_path: Path):
    grid = read_grid(
        written(
            tmp_path,
            "base: {evaluation: {users: 5}}\naxes:\n  surrogate.rounds: [2, 3]\n"
            "  memory: {checked: {}, unchecked: {surrogate.memory_check: false}}\nrepeats: 2\n",
        )
    )
    assert grid.base == {"evaluation.users": 5}
    cells = cells_of(grid.points, config, tmp_path / "e", repeats=grid.repeats)
    assert [(c.config.surrogate.rounds, c.config.surrogate.memory_check, c.repeat) for c in cells] == [
        (rounds, check, repeat) for repeat in (1, 2) for rounds in (2, 3) for check in (True, False)
    ]
    assert [cell.config.llm.seed for cell in cells] == [0] * 4 + [1] * 4
    assert len({cell.config.stores.cache for cell in cells}) == 1, "one response cache"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("axes: {surrogate.ronds: [1]}", "did you mean surrogate.rounds?"),
        ("axes: {}", "no axes"),
        ("axis: {surrogate.rounds: [1]}", "unknown part"),
        ("axes: {surrogate.rounds: 3}", "neither a list"),
        ("axes: {surrogate.rounds: [3, 3]}", "twice"),
        ("axes: {surrogate.rounds: [3]}\nrepeats: 0", "repeats"),
        ("axes: {model: {a: 3}}", "no mapping"),
        ("base: [1]\naxes: {surrogate.rounds: [3]}", "not a mapping"),
        ("axes: [", "cannot read"),
    ],
)
def test_a_wrong_grid_says_what_is_wrong(tmp_path: Path, text: str, said: str):
    with pytest.raises(ConfigError) as raised:
        read_grid(written(tmp_path, text))
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ronds", "data/x"], "did you mean rounds?"),
        (["rounds", "{data}", "--repeats", "0"], "--repeats"),
        (["rounds", "{data}", "--recommenders", "{rec}", "--trainings", "{rec},{rec}"], "twice"),
        (["rounds", "{data}", "--recommenders", "{rec}", "--users", "99999"], "cannot draw that many users"),
        (["{grid}", "{data}", "--recommenders", "{rec}"], "surrogate.rounds (--rounds) is not a whole number"),
    ],
)
def test_bad_input_ends_with_exit_code_2_before_anything_is_written(
    demo_folder: Path,
    demo_recommenders: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
):
    grid = written(tmp_path, "axes: {surrogate.rounds: [3, many]}")
    given = [word.format(data=demo_folder, rec=demo_recommenders, grid=grid) for word in arguments]
    run = tmp_path / "e"
    assert run_command(["experiment", *given, "--run", str(run)]) == 2
    assert said in capsys.readouterr().err
    assert not run.exists()


def test_an_axis_cannot_give_what_the_experiment_gives(config: CompleteConfig, tmp_path: Path):
    point = Point(labels={"run": "x"}, settings={"run": "x"})
    with pytest.raises(ConfigError, match="itself"):
        cells_of([point], config, tmp_path)


def test_two_axes_may_not_give_one_setting():
    with pytest.raises(ConfigError, match="two axes"):
        product({"a": setting_axis("surrogate.rounds", [1]), "b": setting_axis("surrogate.rounds", [2])})


def test_names_of_trainings(tmp_path: Path):
    assert training_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert training_names([tmp_path / "x" / "demo", tmp_path / "y" / "demo"]) == ["x/demo", "y/demo"]


def test_an_axis_may_give_data_sets_and_their_recommenders(config: CompleteConfig, tmp_path: Path):
    grid = read_grid(written(tmp_path, "axes: {pool: {small: {dataset: /a, recommenders: /b}, large: {dataset: /c}}}"))
    cells = cells_of(grid.points, config, tmp_path / "e")
    assert [str(cell.config.dataset) for cell in cells] == ["/a", "/c"]
    assert [cell.config.recommenders for cell in cells] == [Path("/b"), config.recommenders]


def test_every_point_is_run_with_every_training_before_the_next_repeat(config: CompleteConfig, tmp_path: Path):
    points = product({"rounds": setting_axis("surrogate.rounds", [2, 3])})
    cells = cells_of(points, config, tmp_path / "e", repeats=2, trainings=[tmp_path / "a", tmp_path / "b"])
    assert [(cell.repeat, cell.training, cell.config.surrogate.rounds) for cell in cells] == [
        (repeat, training, rounds) for repeat in (1, 2) for training in ("a", "b") for rounds in (2, 3)
    ]
    assert cells[2].config.recommenders == tmp_path / "b"
    assert len({cell.folder for cell in cells}) == len(cells)
