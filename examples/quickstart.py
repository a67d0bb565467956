"""From a data set to a plot: prepare, train, evaluate, draw.   python examples/quickstart.py [FOLDER]"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt

import toolrec


def main(folder: Path, *, data: dict | None = None, training: dict | None = None, users: int = 100) -> Path:
    dataset = toolrec.prepare("demo", out=folder / "data", **(data or {}))
    report = toolrec.train({"dataset": dataset.path, "out": folder / "recommenders", **(training or {})})
    run = toolrec.evaluate({"dataset": dataset.path, "recommenders": report.folder, "run": folder / "run",
                            "evaluation.users": users, "tools.mode": "local"})  # fmt: skip

    ndcg = run.summary.query("metric == 'ndcg@10'").iloc[::-1]
    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    axis.errorbar(ndcg["mean"], ndcg["label"], xerr=[ndcg["mean"] - ndcg["low"], ndcg["high"] - ndcg["mean"]], fmt="o")
    axis.set_xlabel(f"NDCG@10 of {users} users, 95 % interval")
    figure.savefig(folder / "ndcg.svg")
    return folder / "ndcg.svg"


if __name__ == "__main__":
    print(main(Path(sys.argv[1] if len(sys.argv) > 1 else "quickstart")))
