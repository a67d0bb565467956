"""What a prepared data set is worth: figures, a verdict in words, one HTML page."""

from toolrec.data.check.figures import Check, CheckRow, check_dataset
from toolrec.data.check.page import write_page

__all__ = ["Check", "CheckRow", "check_dataset", "write_page"]
