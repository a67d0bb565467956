"""Cells that simulate nobody: recommenders are trained or asked, each cell in a process of its own, whose peak memory is its own.

    python -m toolrec.experiments.measured < task.json

The cell's folder gets the users' lists and figures (lists.parquet) and, last, summary.json.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from toolrec.data import Dataset, Split, load_dataset
from toolrec.errors import ConfigError, RunFailedError, ToolRecError
from toolrec.evaluation.run import data_facts
from toolrec.evaluation.summary import list_figures
from toolrec.experiments.cells import Cell
from toolrec.metrics import DEPTHS, pad_lists
from toolrec.provenance import machine_facts, package_hash
from toolrec.recommenders import ScoringRecommender, load_recommenders, recommenders_manifest
from toolrec.runs.folder import LISTS, SUMMARY
from toolrec.util.files import atomic_file, storage_errors, write_json
from toolrec.util.misspell import misspelt
from toolrec.util.progress import stage
from toolrec.util.urls import place_of

MEASURED = "recommender"
"""The row of a measured cell in its lists.parquet."""

SPLIT: Split = "test"
MISSPELT_TITLES = 5
COMMAND = (sys.executable, "-m", "toolrec.experiments.measured")
FAILED = 2
STATES = ".states-"
"""How a cell's folder with the backbone's states is named while it trains; they can take as much as the training data."""
"""The child's exit code where it says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A recommender that was made as a cell says, and what was seen on the way."""

    recommender: ScoringRecommender
    facts: Mapping[str, Any]
    protocol: Mapping[str, Any]


def check_measured(cell: Cell) -> None:
    """Refuses settings that a measured cell cannot heed.

    Raises:
        ConfigError: another split than the test split is to be scored.
    """
    split = cell.config.evaluation.split
    if split != SPLIT:
        raise ConfigError("this experiment is scored on the test split only", value=split, hint="leave --split out")


def measure(cell: Cell) -> None:
    """Measures a cell in a child process, which ends with this one.

    Raises:
        RunFailedError: for the reason that the child gave, or it ended without a word.
        StorageError: the cell's folder cannot be made.
    """
    with storage_errors(cell.folder):
        cell.folder.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(f"{json.dumps(task_of(cell))}\n")
            child.stdin.flush()
            said = child.stdout.read()
            code = child.wait()
        except BaseException:
            child.kill()
            raise
    refuse_failure(code, said)


def task_of(cell: Cell) -> dict[str, Any]:
    """What the child needs to know, as plain values."""
    evaluation = cell.config.evaluation
    return {
        "measurement": dict(cell.point.measurement or {}),
        "dataset": str(cell.config.dataset),
        "recommenders": str(cell.config.recommenders),
        "users": evaluation.users,
        "seed": evaluation.seed,
        "mask_seen": cell.config.surrogate.mask_seen,
        "repeat": cell.repeat,
        "folder": str(cell.folder),
    }


def refuse_failure(code: int, said: str) -> None:
    """Raises where a child with this exit code, negative for a signal, has not measured its cell.

    Raises:
        RunFailedError: it has not.
    """
    if code == FAILED:
        raise RunFailedError(said.strip())
    if code != 0:
        ended = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        hint = "is there enough memory?" if code == -signal.SIGKILL else None
        raise RunFailedError(f"the process of the cell {ended}", hint=hint)


def main(given: TextIO) -> int:
    """Measures what one line of JSON asks for; `FAILED`, and the reason on standard output, where that cannot be done."""
    task = json.loads(given.readline())
    threading.Thread(target=_end_with_the_parent, args=(given,), daemon=True).start()
    try:
        measure_here(task)
    except ToolRecError as error:
        sys.stdout.write(f"{error}\n")
        return FAILED
    return 0


def _end_with_the_parent(given: TextIO) -> None:
    given.read()
    os._exit(1)


def measure_here(task: Mapping[str, Any]) -> None:
    """Measures a cell in this process and writes its files.

    Raises:
        ToolRecError: something given is wrong.
    """
    folder, repeat = Path(task["folder"]), int(task["repeat"]) - 1
    dataset = load_dataset(task["dataset"])
    users = dataset.sample_users(task["users"], task["seed"], split=SPLIT)
    made = _make(task["measurement"], dataset, place_of(task["recommenders"]), repeat, place=folder)
    histories = [dataset.history(int(user), SPLIT).tolist() for user in users]
    stage(f"lists for {len(users):,} users")
    start_s = time.perf_counter()
    lists = made.recommender.recommend_many(histories, k=max(DEPTHS), mask_seen=task["mask_seen"])
    lists_s = time.perf_counter() - start_s
    list_BK = pad_lists([[item.item_index for item in items] for items in lists], length=max(DEPTHS))
    facts = {**made.facts, "list_ms": 1e3 * lists_s / len(users), "peak_bytes": peak_bytes()}
    figures = list_figures(MEASURED, list_BK, users.astype(np.int64), dataset, split=SPLIT)
    manifest = recommenders_manifest(place_of(task["recommenders"]))
    protocol = {
        **data_facts(dataset),
        "split": SPLIT,
        "users": len(users),
        "seed": task["seed"],
        "mask_seen": task["mask_seen"],
        "recommenders_checksum": manifest["checksum"][:16],
        "model_history_length": manifest["model_history_length"],
        **made.protocol,
        "machine": machine_facts(),
    }
    with storage_errors(folder):
        with atomic_file(folder / LISTS) as temporary:
            figures.to_parquet(temporary, compression="zstd", index=False)
        summary = {"protocol": protocol, "measured": facts, "code": {"toolrec": package_hash()}}
        write_json(folder / SUMMARY, summary)


def _make(measurement: Mapping[str, Any], dataset: Dataset, recommenders: Path, repeat: int, *, place: Path) -> Measured:
    if "mode" in measurement:
        return _trained(measurement, dataset, recommenders, repeat, place)
    return _widened(measurement, dataset, recommenders, repeat)


def _trained(measurement: Mapping[str, Any], dataset: Dataset, recommenders: Path, repeat: int, place: Path) -> Measured:
    import torch

    from toolrec.recommenders.training.modes import ModeTraining

    for left in place.glob(f"{STATES}*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=place, prefix=STATES) as states:
        training = ModeTraining(
            dataset, recommenders, measurement["attribute"], measurement["mode"], place=Path(states), seed=repeat
        )
        best = training.best(
            measurement["learning_rates"], max_epochs=measurement["max_epochs"], patience=measurement["patience"]
        )
    facts = {
        "parameters": best.num_parameters,
        "learning_rate": best.learning_rate,
        "validation_ndcg": best.validation_ndcg,
        "epochs": best.num_epochs,
        "epoch_s": best.duration_s,
        "train_s": best.total_s,
    }
    config = training.config
    protocol = {
        "validation_users": training.num_validation_users,
        "learning_rates": measurement["learning_rates"],
        "max_epochs": measurement["max_epochs"],
        "patience": measurement["patience"],
        "backbone": config.backbone.as_json(),
        "encoder": config.encoder.as_json(),
        "encoder_fit": config.encoder_fit.as_json(),
        "training_seed": config.seed + repeat,
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
    }
    return Measured(recommender=best.recommender, facts=facts, protocol=protocol)


def _widened(measurement: Mapping[str, Any], dataset: Dataset, recommenders: Path, repeat: int) -> Measured:
    import torch

    from toolrec.memory import PoolDirectory
    from toolrec.recommenders.models.backbone import Backbone
    from toolrec.recommenders.widened import WidenedPool

    num_items = int(measurement["items"])
    loaded = load_recommenders(recommenders, dataset, names=["backbone"])["backbone"]
    assert isinstance(loaded, Backbone)
    stage(f"a pool of {num_items:,} items")
    start_s = time.perf_counter()
    recommender = WidenedPool(loaded, num_items, seed=repeat)
    widen_s = time.perf_counter() - start_s
    pool = dataset.pool
    invented = range(1, num_items - pool.num_items + 1)
    directory = PoolDirectory(
        pool.widened(
            item_ids=[f"invented-{number}" for number in invented],
            titles=[f"{pool.titles[1 + number % pool.num_items]} {number}" for number in invented],
        )
    )
    start_s = time.perf_counter()
    directory.find("A title that no item has")  # titles are indexed at the first entry that is no id
    index_s = time.perf_counter() - start_s
    draw = random.Random(0)
    entries = [misspelt(title, draw) for title in pool.titles[1 : 1 + MISSPELT_TITLES]]
    start_s = time.perf_counter()
    for entry in entries:
        directory.find(entry)
    check_ms = 1e3 * (time.perf_counter() - start_s) / len(entries)
    facts = {"widen_s": widen_s, "index_s": index_s, "check_ms": check_ms}
    protocol = {
        "pool": f"{num_items:,} items, {num_items - dataset.num_items:,} of them invented",
        "invented_items_seed": repeat,
        "misspelt_titles": len(entries),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
    }
    return Measured(recommender=recommender, facts=facts, protocol=protocol)


def peak_bytes() -> int:
    """The most memory that this process has had resident."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # here a child may have inherited its parent's
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    sys.exit(main(sys.stdin))
