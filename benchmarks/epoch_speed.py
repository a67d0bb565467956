"""Seconds of a SASRec epoch, beside RecBole's over the same interactions, in one run on the same threads.

    python benchmarks/epoch_speed.py data/ml-100k --recbole-python PYTHON --atomic-files FOLDER

Both: width 64, two layers of two heads, feed-forward of 256, histories of 50, full cross-entropy. RecBole trains one row per
prefix, in batches of 2,048 rows; ours trains whole sequences, every position a target. Our epoch includes its validation.
Beside other work seconds of the processor say more than those of the clock.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from toolrec.data import load_dataset
from toolrec.recommenders.config import FitConfig, TransformerConfig
from toolrec.recommenders.training.fitting import EpochLog, fit
from toolrec.recommenders.training.trainees import BackboneTrainee, new_backbone
from toolrec.recommenders.training.validation import validation_set

WIDTH, HISTORY, DROPOUT = 64, 50, 0.5
PEER = Path(__file__).absolute().with_name("recbole_peer.py")


def our_epoch_s(folder: Path, num_epochs: int) -> tuple[float, float]:
    """Median seconds of an epoch with its validation, on the clock and of the processor, the first epoch left out."""
    dataset = load_dataset(folder)
    torch.manual_seed(0)
    config = TransformerConfig(width=WIDTH, num_layers=2, num_heads=2, dropout=DROPOUT, attention_dropout=DROPOUT)
    model = new_backbone("sasrec", config, num_items=dataset.num_items, model_history_length=HISTORY)
    trainee = BackboneTrainee(model, dataset.train_sequences(), validation_set(dataset, max_users=2000), mask_share=0.2)
    log: list[EpochLog] = []
    fit(trainee, FitConfig(batch_size=32, max_epochs=num_epochs + 1, patience=num_epochs + 1), seed=0, on_epoch=log.append)
    wall_s, cpu_s = ([getattr(epoch, name) for epoch in log] for name in ("duration_s", "cpu_s"))
    return float(np.median(np.diff(wall_s))), float(np.median(np.diff(cpu_s)))


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
    ours_s, ours_cpu_s = our_epoch_s(flags.dataset, flags.epochs)
    console.print(
        f"toolrec: {ours_s:.2f} s an epoch ({ours_cpu_s:.2f} CPU), validation included "
        f"({flags.threads} threads, torch {torch.__version__})"
    )
    if flags.recbole_python is None:
        return
    shape = [str(flags.atomic_files.absolute()), str(flags.threads), str(WIDTH), str(HISTORY)]
    command = [str(Path(flags.recbole_python).absolute()), str(PEER), *shape]
    with tempfile.TemporaryDirectory() as place:  # RecBole writes logs where it stands
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=place)
    theirs_s, theirs_cpu_s, rows = (float(figure) for figure in done.stdout.split()[-3:])
    console.print(f"RecBole: {theirs_s:.1f} s an epoch of {rows:,.0f} rows ({theirs_cpu_s:.1f} CPU), validation not included")
    console.print(f"ratio: {theirs_s / ours_s:.1f} on the clock, {theirs_cpu_s / ours_cpu_s:.1f} of the processor")


if __name__ == "__main__":
    main()
