"""What every process of `test_parallel.py` runs: a short training without dropout, its weights written to a file."""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from toolrec.recommenders.config import FitConfig, TransformerConfig
from toolrec.recommenders.training.fitting import fit
from toolrec.recommenders.training.parallel import joined
from toolrec.recommenders.training.trainees import BackboneTrainee, new_backbone
from toolrec.recommenders.training.validation import ValidationSet

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = TransformerConfig(width=8, num_layers=1, num_heads=2, dropout=0.0)
    model = new_backbone("sasrec", config, num_items=20, model_history_length=6)
    rng = np.random.default_rng(0)
    sequences = [rng.integers(1, 21, size=rng.integers(2, 15)) for _ in range(33)]
    validation = ValidationSet(sequences[:10], np.arange(1, 11))
    with joined(is_cuda=False) as group:
        fit_config = FitConfig(batch_size=4, max_epochs=3, precision="float32", averaging=0.0)
        result = fit(BackboneTrainee(model, sequences, validation, mask_share=0.2), fit_config, seed=0)
        save_file(model.state_dict(), Path(sys.argv[1]) / f"{group.size}-{group.position}.safetensors")
        print(result.best_ndcg_at_10, result.log[-1].loss)
