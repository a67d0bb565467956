"""The collector of a long-lived process: in a process of its own, since it goes for the whole of it."""

from __future__ import annotations

import subprocess
import sys

LOOK = """
import gc
from toolrec import garbage
kept = [[] for _ in range(1000)]
garbage.settle()
assert gc.get_freeze_count() >= 1000, gc.get_freeze_count()
assert gc.get_threshold()[0] == garbage.YOUNG_OBJECTS and gc.isenabled()
collections = gc.get_stats()[0]["collections"]
more = [[] for _ in range(garbage.YOUNG_OBJECTS - 1000)]
assert gc.get_stats()[0]["collections"] == collections
more += [[] for _ in range(2000)]
assert gc.get_stats()[0]["collections"] == collections + 1
"""


def test_what_is_kept_is_frozen_and_collections_are_rarer_but_still_come():
    subprocess.run([sys.executable, "-c", LOOK], check=True)
