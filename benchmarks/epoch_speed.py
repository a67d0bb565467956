"""Seconds of a SASRec epoch, beside RecBole's over the same interactions, in one run on the same threads.

    python benchmarks/epoch_speed.py data/ml-100k --recbole-python PYTHON --atomic-files FOLDER

Both: width 64, two layers of two heads, feed-forward of 256, histories of 50, full cross-entropy. RecBole trains one row per
prefix, in batches of 2,048 rows; ours trains whole sequences, every position a target. Our epoch includes its validation.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from toolrec.data import load_dataset
from toolrec.recommenders.config import FitConfig, TransformerConfig
from toolrec.recommenders.fitting import EpochLog, fit
from toolrec.recommenders.trainees import BackboneTrainee, new_backbone
from toolrec.recommenders.validation import validation_set

WIDTH, HISTORY, DROPOUT = 64, 50, 0.5
PEER = Path(__file__).with_name("recbole_peer.py")


def our_epoch_s(folder: Path, num_epochs: int) -> float:
    """Median seconds of an epoch with its validation, the first one left out."""
    dataset = load_dataset(folder)
    torch.manual_seed(0)
    config = TransformerConfig(width=WIDTH, num_layers=2, num_heads=2, dropout=DROPOUT, attention_dropout=DROPOUT)
    model = new_backbone("sasrec", config, num_items=dataset.num_items, model_history_length=HISTORY)
    trainee = BackboneTrainee(model, dataset.train_sequences(), validation_set(dataset, max_users=2000), mask_share=0.2)
    ends_s = [time.perf_counter()]

    def note(_: EpochLog) -> None:
        ends_s.append(time.perf_counter())

    fit(trainee, FitConfig(batch_size=32, max_epochs=num_epochs + 1, patience=num_epochs + 1), seed=0, on_epoch=note)
    return float(np.median(np.diff(ends_s)[1:]))


def main() -> None:
    """Measures ours, then the peer if its environment is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="ML-100K as `toolrec data prepare` made it")
    parser.add_argument("--recbole-python", help="a Python that has RecBole")
    parser.add_argument("--atomic-files", type=Path, help="the folder that holds ml-100k/ml-100k.inter")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5, help="of ours; the median is shown")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    console = Console()
    ours_s = our_epoch_s(flags.dataset, flags.epochs)
    console.print(f"toolrec: {ours_s:.2f} s an epoch, validation included ({flags.threads} threads, torch {torch.__version__})")
    if flags.recbole_python is None:
        return
    shape = [str(flags.atomic_files), str(flags.threads), str(WIDTH), str(HISTORY)]
    done = subprocess.run([flags.recbole_python, str(PEER), *shape], check=True, capture_output=True, text=True)
    theirs_s, rows = done.stdout.split()[-2:]
    console.print(f"RecBole: {float(theirs_s):.1f} s an epoch of {int(rows):,} rows, validation not included")
    console.print(f"ratio: {float(theirs_s) / ours_s:.1f}")


if __name__ == "__main__":
    main()
