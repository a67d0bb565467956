"""One training epoch of RecBole's SASRec, run by `epoch_speed.py` in an environment of its own that has RecBole.

PYTHON-WITH-RECBOLE benchmarks/recbole_peer.py FOLDER-OF-ML-100K-ATOMIC-FILES THREADS WIDTH HISTORY
"""

from __future__ import annotations

import sys
import time

import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed


def main() -> None:
    """Prints the epoch's seconds on the clock, its seconds of the processor, and its number of training rows."""
    folder, threads, width, history = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(threads)
    settings = {
        "data_path": folder,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": history,
        "hidden_size": width,
        "inner_size": 4 * width,
        "n_layers": 2,
        "n_heads": 2,
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
        "use_gpu": False,
        "save_dataset": False,
        "show_progress": False,
        "state": "ERROR",
    }
    sys.argv = sys.argv[:1]  # RecBole reads flags of its own
    config = Config(model="SASRec", dataset="ml-100k", config_dict=settings)
    init_seed(0, True)
    dataset = create_dataset(config)
    train, _, _ = data_preparation(config, dataset)
    model = SASRec(config, train.dataset)
    trainer = Trainer(config, model)
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    trainer._train_epoch(train, 0)
    print(time.perf_counter() - start_s, time.process_time() - start_cpu_s, len(train.dataset))


if __name__ == "__main__":
    main()
