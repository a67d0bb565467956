"""A run as a page to look through: `toolrec view` serves it, `toolrec report` writes it as one file."""

from toolrec.report.page import write_report

__all__ = ["write_report"]
