"""The field's words, once: names of columns in every Parquet file and table of the project."""

from __future__ import annotations


class Columns:
    """Column names. Ids are the data set's own strings; indexes are internal, `1..n`, with 0 for padding."""

    USER_ID = "user_id"
    ITEM_ID = "item_id"
    USER_INDEX = "user_index"
    ITEM_INDEX = "item_index"
    RATING = "rating"
    TIMESTAMP = "timestamp"
    SEQUENCE_INDEX = "sequence_index"
    TITLE = "title"


PADDING_INDEX = 0
"""The item index that stands for no item."""

PLAIN_BACKBONE = "none"
"""The attribute name under which the surrogate calls the plain backbone (the paper's `Retrieve[None, K]`)."""

DEFAULT_LIST_LENGTH = 10
"""Slots of a final list."""
