"""Figures of a finished run: metrics, intervals and paired tests, where hits come from, tables, report.

What needs pandas is imported when it is first named, so that the settings cost nothing to import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from toolrec.evaluation.config import EvaluationSettings

if TYPE_CHECKING:
    from toolrec.evaluation.run import FinishedRun, evaluate_run
    from toolrec.evaluation.tables import print_summary

__all__ = ["EvaluationSettings", "FinishedRun", "evaluate_run", "print_summary"]

_WITH_PANDAS = {"FinishedRun": "run", "evaluate_run": "run", "print_summary": "tables"}


def __getattr__(name: str) -> Any:
    if name in _WITH_PANDAS:
        return getattr(importlib.import_module(f"toolrec.evaluation.{_WITH_PANDAS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
