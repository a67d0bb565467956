"""How lists scale with the pool: seconds and memory of the top 10 for many users over pools of up to a million items.

    python benchmarks/pool_size.py --items 1000,10000,100000,1000000 --users 1000

The backbone is an untrained SASRec of the given width: what a list costs does not depend on what the weights are. Every pool
is measured in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from toolrec.recommenders.backbone import Backbone
from toolrec.recommenders.config import TransformerConfig
from toolrec.recommenders.trainees import new_backbone

HISTORY = 50


def measure(num_items: int, num_users: int, width: int) -> None:
    """Prints milliseconds to make the recommender, seconds for all lists, the same a user, and peak bytes."""
    torch.manual_seed(0)
    start_s = time.perf_counter()
    config = TransformerConfig(width=width, dropout=0.0)
    model = new_backbone("sasrec", config, num_items=num_items, model_history_length=HISTORY)
    backbone = Backbone(model, popularity_I=np.ones(num_items + 1))
    made_s = time.perf_counter() - start_s
    rng = np.random.default_rng(0)
    histories = [rng.integers(1, num_items + 1, size=HISTORY).tolist() for _ in range(num_users)]
    start_s = time.perf_counter()
    lists = backbone.recommend_many(histories, k=10)
    lists_s = time.perf_counter() - start_s
    if any(len(ranked) != 10 for ranked in lists):
        raise SystemExit("a list is short")
    print(made_s, lists_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main() -> None:
    """Runs each pool size in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", default="1000,10000,100000,1000000", help="pool sizes, with commas between")
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.one:
        measure(flags.one, flags.users, flags.width)
        return
    table = Table(title=f"top 10 for {flags.users:,} users, width {flags.width}, histories of {HISTORY}, seen items masked")
    for heading in ("items", "to load (s)", "all lists (s)", "ms a user", "peak memory (GB)"):
        table.add_column(heading, justify="right")
    for num_items in (int(text) for text in flags.items.split(",")):
        command = [sys.executable, __file__, "--one", str(num_items), "--users", str(flags.users), "--width", str(flags.width)]
        made_s, lists_s, peak = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
        per_user_ms = 1e3 * lists_s / flags.users
        table.add_row(f"{num_items:,}", f"{made_s:.1f}", f"{lists_s:.2f}", f"{per_user_ms:.2f}", f"{peak / 1e9:.2f}")
    Console().print(table)
    Console().print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, double precision")


if __name__ == "__main__":
    main()
