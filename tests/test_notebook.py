"""A run in a notebook, and the notebook among the examples."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from toolrec.errors import ConfigError, RunFolderError
from toolrec.evaluation.notebook import RunPlots
from toolrec.runs.run import load_run

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "examples" / "look_at_a_run.ipynb"
HOSTILE = "<script>alert(1)</script>"


def cells() -> list[str]:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """The value of a cell's last line, where it is an expression: what Jupyter shows."""
    tree = ast.parse(source)
    last = tree.body[-1]
    names["shown"] = None
    if isinstance(last, ast.Expr):
        tree.body[-1] = ast.Assign(targets=[ast.Name("shown", ast.Store())], value=last.value)
    exec(compile(ast.fix_missing_locations(tree), str(NOTEBOOK), "exec"), names)
    return names["shown"]


def test_every_cell_of_the_example_runs_and_shows_something(small_run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TOOLREC_RUN", str(small_run))
    names: dict[str, Any] = {}
    shown = [run_cell(source, names) for source in cells()]
    drawn = [value._repr_html_() for value in shown if value is not None]
    assert len(drawn) >= 7 and all(re.search(r"<(table|svg)", html) for html in drawn)


def test_a_real_kernel_runs_the_example(small_run: Path, tmp_path: Path):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    environment = {**os.environ, "TOOLREC_RUN": str(small_run), "PYTHONPATH": str(ROOT)}
    nbclient.NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute(env=environment)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    html = [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert not any(output.output_type == "error" for output in outputs)
    assert sum("<svg" in text for text in html) == 3 and sum("<table" in text for text in html) >= 4


class TestTheRunObject:
    def test_it_shows_the_figures_of_its_summary(self, small_run: Path):
        run = load_run(small_run)
        html, row = run._repr_html_(), run.summary_json["surrogate"]
        low, high = row["intervals"]["ndcg@10"]
        assert f"{row['ndcg@10']:.4f} [{low:.4f}, {high:.4f}]" in html
        assert "12 users have ended" in html and "<summary>Protocol</summary>" in html and "split: test" in html

    def test_texts_are_escaped(self, small_run: Path, tmp_path: Path):
        folder = tmp_path / "x<img src=x>"
        shutil.copytree(small_run, folder)
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        summary["backbone"]["label"] = HOSTILE
        summary["protocol"] |= {"model": HOSTILE, "notes": [HOSTILE]}
        (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        run = load_run(folder)
        for html in (run._repr_html_(), run.plot.metrics()._repr_html_(), run.plot.ceiling()._repr_html_()):
            assert "<script" not in html and "<img" not in html
        assert "&lt;script&gt;" in run._repr_html_()

    def test_a_run_without_figures_says_how_far_it_is(self, small_run: Path, tmp_path: Path):
        folder = tmp_path / "run"
        shutil.copytree(small_run, folder)
        (folder / "summary.json").unlink()
        run = load_run(folder)
        assert "interrupted" in run._repr_html_() and "<table" not in run._repr_html_()
        with pytest.raises(RunFolderError, match="no figures yet"):
            _ = run.plot

    @pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
    def test_a_plot_is_saved_by_its_name(self, small_run: Path, tmp_path: Path, suffix: str):
        path = tmp_path / f"plot.{suffix}"
        load_run(small_run).plot.metrics().save(path)
        beginning = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[suffix]
        assert path.read_bytes().startswith(beginning)

    def test_another_name_is_refused(self, small_run: Path, tmp_path: Path):
        with pytest.raises(ConfigError, match="no picture"):
            load_run(small_run).plot.metrics().save(tmp_path / "plot.docx")
        assert not list(tmp_path.iterdir())

    def test_every_plot_draws_and_two_on_a_page_share_no_id(self, small_run: Path):
        plots = load_run(small_run).plot
        for plot in (plots.differences("recall@10"), plots.rounds(), plots.tools(), plots.ceiling()):
            assert plot.figure().axes, plot
        summary = load_run(small_run).summary_json
        other_surrogate = {**summary["surrogate"], "ndcg@10": 0.5}
        first, again = (load_run(small_run).plot.metrics().svg for _ in range(2))
        other = RunPlots({**summary, "surrogate": other_surrogate}).metrics().svg
        assert first == again
        ids = [set(re.findall(r'id="([^"]+)"', svg)) for svg in (first, other)]
        assert ids[0] and not ids[0] & ids[1]
