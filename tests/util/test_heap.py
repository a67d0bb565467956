"""The memory of a long-lived process: in a process of its own, since it goes for the whole of it."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

LOOK = """
import gc
from toolrec.util import heap
kept = [[] for _ in range(1000)]
heap.settle()
assert gc.get_freeze_count() >= 1000, gc.get_freeze_count()
assert gc.get_threshold()[0] == heap.YOUNG_OBJECTS and gc.isenabled()
collections = gc.get_stats()[0]["collections"]
more = [[] for _ in range(heap.YOUNG_OBJECTS - 1000)]
assert gc.get_stats()[0]["collections"] == collections
more += [[] for _ in range(2000)]
assert gc.get_stats()[0]["collections"] == collections + 1
"""


def test_what_is_kept_is_frozen_and_collections_are_rarer_but_still_come():
    subprocess.run([sys.executable, "-c", LOOK], check=True)


FREE = """
import ctypes, psutil
from toolrec.util import heap
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
blocks = [libc.malloc(ctypes.c_size_t(50_000)) for _ in range(4000)]
[ctypes.memset(block, 1, 50_000) for block in blocks]
full = psutil.Process().memory_info().rss
[libc.free(block) for block in blocks[:-1]]  # the last one keeps the heap from shrinking by itself
kept = psutil.Process().memory_info().rss
heap.give_back()
left = psutil.Process().memory_info().rss
assert full - kept < 50e6 and kept - left > 150e6, (full, kept, left)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_was_freed_goes_back_to_the_machine():
    subprocess.run([sys.executable, "-c", FREE], check=True)
