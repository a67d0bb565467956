"""Figures of a finished run: metrics, intervals and paired tests, where hits come from, tables, report."""

from toolrec.evaluation.run import FinishedRun, evaluate_run
from toolrec.evaluation.tables import print_summary

__all__ = ["FinishedRun", "evaluate_run", "print_summary"]
