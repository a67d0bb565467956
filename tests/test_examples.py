"""The examples run."""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib
import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_quickstart_goes_from_a_data_set_to_a_plot(tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch):
    matplotlib.use("Agg")
    source = ROOT / "examples" / "quickstart.py"
    assert len(source.read_text(encoding="utf-8").splitlines()) <= 30, "it stands in the README"
    spec = importlib.util.spec_from_file_location("quickstart", source)
    assert spec is not None and spec.loader is not None
    quickstart = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(quickstart)

    quick = {"backbone_fit": {"max_epochs": 1}, "encoder_fit": {"max_epochs": 1}, "learn_fusions": False}
    plot = quickstart.main(tmp_path, data={"users": 60, "items": 120}, training={"recommenders": quick}, users=10)
    drawn = ET.fromstring(plot.read_text(encoding="utf-8"))
    assert drawn.tag.endswith("svg") and len(list(drawn.iter())) > 50
