"""A run's figures, settings and report for an experiment tracker: Weights & Biases or MLflow."""

from __future__ import annotations

import math
from typing import Any, Literal

from toolrec.errors import ConfigError
from toolrec.exports.source import Source
from toolrec.runs.folder import REPORT, SUMMARY
from toolrec.util.extras import needed

Tracker = Literal["wandb", "mlflow"]
TRACKERS: tuple[Tracker, ...] = ("wandb", "mlflow")
FILES = (SUMMARY, REPORT)
PARAMETER_CHARACTERS = 500
"""What every MLflow store takes as a parameter's value."""


def push(source: Source, tracker: Tracker, *, project: str) -> str:
    """Logs the run; where and as whom is the tracker's own affair (its environment variables and login).

    Args:
        source: a run with figures.
        tracker: which one.
        project: the project (wandb) or experiment (mlflow) that it goes to.

    Returns:
        Where it is, in the tracker's words.

    Raises:
        ConfigError: the tracker is not installed, or does not take the run.
        RunFolderError: the run has no figures yet.
    """
    _ = source.run.summary_json  # refuses a run that is not complete
    module = needed(tracker, extra=f"pip install {tracker}", purpose=f"--push {tracker}")
    try:
        return _to_wandb(module, source, project) if tracker == "wandb" else _to_mlflow(module, source, project)
    except ConfigError:
        raise
    except Exception as error:  # trackers have no common class of errors
        raise ConfigError(f"{tracker} did not take the run ({type(error).__name__}: {error})", value=source.name) from error


def figures_of(source: Source) -> dict[str, float]:
    """Every figure by recommender and metric, as in `surrogate/ndcg_at_10`, with the ends of its interval beside it."""
    figures: dict[str, float] = {}
    for row in source.run.summary.to_dict("records"):
        name = f"{str(row['recommender']).replace(':', '_')}/{str(row['metric']).replace('@', '_at_')}"
        values = {name: row["mean"], f"{name}_low": row["low"], f"{name}_high": row["high"]}
        figures |= {key: float(value) for key, value in values.items() if not math.isnan(value)}
    users = source.run.users
    for column in ("num_llm_calls", "prompt_tokens", "completion_tokens", "cost_usd"):
        total = float(users[column].sum(skipna=False))
        if not math.isnan(total):
            figures[f"total/{column}"] = total
    return figures


def _to_wandb(wandb: Any, source: Source, project: str) -> str:
    config = {"settings": source.settings, "protocol": source.run.summary_json["protocol"]}
    with wandb.init(project=project, name=source.name, config=config, job_type="evaluation") as run:
        run.summary.update(figures_of(source))
        artifact = wandb.Artifact(f"run-{source.run.manifest['resume_key'][:16]}", type="run")
        for name in FILES:
            if (source.run.path / name).is_file():
                artifact.add_file(str(source.run.path / name))
        run.log_artifact(artifact)
        return str(run.url or run.dir)


def _to_mlflow(mlflow: Any, source: Source, project: str) -> str:
    mlflow.set_experiment(project)
    with mlflow.start_run(run_name=source.name) as run:
        mlflow.log_params({name: str(value)[:PARAMETER_CHARACTERS] for name, value in source.settings.items()})
        mlflow.log_metrics(figures_of(source))
        for name in FILES:
            if (source.run.path / name).is_file():
                mlflow.log_artifact(str(source.run.path / name))
        return f"{mlflow.get_tracking_uri()} run {run.info.run_id}"
