"""A sweep from its config to its results: states computed once, trials on Ray Tune, the best one promoted.

sweep.json         the protocol: config, search space, data set, backbone, versions
trials/            every trial's parameters, state and end (toolrec/tuning/trial.py)
tune/              Ray Tune's own record of the experiment; it holds pickles: restore only sweeps of your own
results.parquet    one row a trial
epochs.parquet     one row an epoch
plot.svg           learning curves and the best by trial
summary.json       totals, the best trial, where it was promoted to
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from toolrec import __version__
from toolrec.connect import connected
from toolrec.data import Dataset, load_dataset
from toolrec.errors import CheckpointError, ConfigError, RunFolderError, RunStoppedError
from toolrec.recommenders import checkpoint
from toolrec.recommenders.training.build import check_attributes, resolve_device
from toolrec.recommenders.training.frozen import freeze, open_frozen
from toolrec.recommenders.training.validation import ValidationSet, validation_set
from toolrec.tuning import COMMAND
from toolrec.tuning.config import (
    PROTOCOL,
    SCHEMA_VERSION,
    Resources,
    SweepConfig,
    config_of,
    read_protocol,
    resources_of,
    with_fit,
)
from toolrec.tuning.results import Summary, finish, is_complete
from toolrec.tuning.spaces import Domain
from toolrec.tuning.trial import METRIC, Plan, run_trial
from toolrec.tuning.trials import stored_rows
from toolrec.tuning.watch import RememberingASHA, Watch
from toolrec.util.files import sha256_json, write_json
from toolrec.util.progress import stage

SNAPSHOT_S = 2
"""Seconds between two of Ray Tune's own snapshots of an experiment."""

RETRIES = 1
"""Times that a trial whose process was lost goes on elsewhere from its last epoch."""

_EXPERIMENT = "tune"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    dataset: Dataset
    plan: Plan
    protocol: Mapping[str, Any]


def start_sweep(config: SweepConfig, folder: Path, resources: Resources) -> Summary:
    """Runs a new sweep.

    Args:
        folder: of the sweep; it must not exist.

    Raises:
        RunFolderError: the folder exists.
        ConfigError: a setting does not fit the data set, the recommenders or the machine.
        RunStoppedError: the sweep ended before all trials did.
        ToolRecError: no trial came to anything; it is the first trial's error.
    """
    if folder.exists():
        raise RunFolderError("the sweep's folder is there already", value=str(folder), hint=f"go on with {_resume(folder)}")
    _check_searcher(config)
    dataset = load_dataset(config.dataset)
    _check_promotion(config)
    prepared = _prepare(config, dataset, folder, resources)
    write_json(folder / PROTOCOL, prepared.protocol)
    return _run(config, prepared, folder, resources)


def resume_sweep(folder: Path, **changes: Any) -> Summary:
    """Goes on with a sweep that was stopped or killed, or tries its failed trials again.

    Args:
        changes: resources that differ from those that the sweep's file keeps.

    Raises:
        RunFolderError: it is no sweep's folder, or the sweep is complete.
        CheckpointError: the data set or the backbone is another than the sweep's.
    """
    protocol = read_protocol(folder)
    if is_complete(folder):
        raise RunFolderError("the sweep is complete", value=str(folder), hint=f"see it with {COMMAND.get()} show {folder}")
    config, resources = config_of(protocol), resources_of(protocol).replaced(**changes)
    _check_searcher(config)
    prepared = _prepare(config, load_dataset(config.dataset), folder, resources)
    for name in ("dataset", "backbone"):
        if prepared.protocol[name] != protocol[name]:
            raise CheckpointError(
                f"the {name} is another than the sweep's", value=prepared.protocol[name], allowed=protocol[name]
            )
    return _run(config, prepared, folder, resources)


def _check_searcher(config: SweepConfig) -> None:
    if config.searcher == "optuna" and importlib.util.find_spec("optuna") is None:
        raise ConfigError("the searcher optuna needs a package that is missing", hint="pip install 'toolrec[optuna]'")


def _check_promotion(config: SweepConfig) -> None:
    target = config.promote_to
    if config.promote == "never" or not target.exists():
        return
    members = checkpoint.recommenders_manifest(target)["members"]
    if config.is_backbone and any(member["kind"] == "attribute_encoder" for member in members):
        raise ConfigError(
            "the folder has encoders of another backbone, which a new one would make useless",
            value=str(target),
            hint="give another --promote-to",
        )


def _prepare(config: SweepConfig, dataset: Dataset, folder: Path, resources: Resources) -> _Prepared:
    device = resolve_device("auto")  # of this process; the trials' is in the plan
    max_users = config.fit.max_validation_users
    validation = validation_set(dataset, max_users=max_users)
    frozen, backbone = None, None
    if not config.is_backbone:
        check_attributes(dataset, [config.member])
        frozen, backbone = _frozen(config, dataset, validation, folder.parent / "frozen-states", device)
    plan = Plan(
        member=config.member,
        dataset=config.dataset,
        text_encoder=config.text_encoder,
        frozen=frozen,
        trials=folder / "trials",
        base=config.base,
        max_validation_users=max_users,
        device="cuda" if resources.gpus_per_trial else "cpu",
        num_threads=max(1, int(resources.cpus_per_trial)),
    )
    protocol = {
        "schema_version": SCHEMA_VERSION,
        "kind": "sweep",
        "config": config.as_json(),
        "resources": resources.as_json(),
        "dataset": {"name": dataset.name, "checksum": dataset.checksum},
        "backbone": backbone,
        "validation": f"{dataset.split_name}, full ranking, seen items masked, {len(validation.targets)} users",
        "versions": {"toolrec": __version__, "torch": torch.__version__, "ray": ray.__version__},
    }
    return _Prepared(dataset=dataset, plan=plan, protocol=protocol)


def _frozen(config: SweepConfig, dataset: Dataset, validation: ValidationSet, cache: Path, device: str) -> tuple[Path, str]:
    """The folder of the frozen backbone's states, computed if no earlier sweep has done so, and the backbone's checksum."""
    source = Path(str(config.recommenders))
    member, _ = checkpoint.backbone_entry(source, dataset)
    backbone = sha256_json(member["files"])
    about = {
        "dataset": dataset.checksum,
        "backbone": backbone,
        "max_validation_users": config.fit.max_validation_users,
        "mask_share": config.base.mask_share,
    }
    place = cache / sha256_json(about)[:16]
    if place.exists() and about.items() <= open_frozen(place, validation).about.items():
        stage(f"the backbone's states are those of {place}")
        return place, backbone
    model = checkpoint.load_backbone_model(source, member, num_items=dataset.num_items).to(device)
    examples = model.fixed_examples(dataset.train_sequences(), mask_share=config.base.mask_share)
    freeze(model, examples, validation, folder=place, about=about)
    return place, backbone


def _run(config: SweepConfig, prepared: _Prepared, folder: Path, resources: Resources) -> Summary:
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # the trials' own files say more
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ["AIR_VERBOSITY"] = "0"  # a restored experiment has forgotten that it was to be silent
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", str(SNAPSHOT_S))
    if not logging.getLogger().isEnabledFor(logging.INFO):
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a failed trial's error stands in the table and the results
    stage("starting Ray")
    with connected(resources.address, num_cpus=resources.num_cpus):
        _check_resources(resources)
        try:
            with contextlib.redirect_stdout(sys.stderr):  # Ray Tune's own greeting
                _tuner(config, prepared.plan, folder, resources).fit()
        except KeyboardInterrupt:
            stage(f"stopped; go on with {_resume(folder)}")
            raise
    rows = stored_rows(prepared.plan.trials)
    if len(rows) < config.num_trials or any(row.status == "unfinished" for row in rows):
        raise RunStoppedError("the sweep ended before all of its trials did", hint=f"go on with {_resume(folder)}")
    return finish(config, prepared.plan, prepared.dataset, prepared.protocol, folder, rows)


def _tuner(config: SweepConfig, plan: Plan, folder: Path, resources: Resources) -> tune.Tuner:
    trainable = tune.with_resources(
        functools.partial(run_trial, plan=plan), {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}
    )
    place = str(folder / _EXPERIMENT)
    if tune.Tuner.can_restore(place):
        stage("going on with the trials")
        return tune.Tuner.restore(place, trainable, resume_errored=True)
    scheduler = None
    if config.scheduler == "asha" and config.grace_epochs < config.max_epochs:
        scheduler = RememberingASHA(
            plan.trials,
            max_epochs=config.max_epochs,
            grace_epochs=config.grace_epochs,
            reduction_factor=config.reduction_factor,
        )
    return tune.Tuner(
        trainable,
        param_space={name: drawn_from(domain) for name, domain in config.space.items()},
        tune_config=tune.TuneConfig(
            num_samples=config.num_trials,
            search_alg=searcher_of(config, resources),
            scheduler=scheduler,
            # Of random draws the searcher itself keeps the limit: beside an instance of it Ray Tune ignores this one.
            max_concurrent_trials=resources.max_concurrent if config.searcher == "optuna" else None,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=_EXPERIMENT,
            storage_path=str(folder),
            callbacks=[Watch(plan.trials, num_trials=config.num_trials, max_epochs=config.max_epochs)],
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            verbose=0,
        ),
    )


def searcher_of(config: SweepConfig, resources: Resources) -> Any:
    """Where the trials' settings come from; random draws keep to the trials at a time themselves."""
    if config.searcher == "optuna":
        from ray.tune.search.optuna import OptunaSearch

        return OptunaSearch(metric=METRIC, mode="max", seed=config.seed)
    from ray.tune.search.basic_variant import BasicVariantGenerator

    return BasicVariantGenerator(random_state=config.seed, max_concurrent=resources.max_concurrent or 0)


def drawn_from(domain: Domain) -> Any:
    """Ray Tune's own form of a domain."""
    if domain.kind == "choice":
        return tune.choice(list(domain.values))
    return (tune.loguniform if domain.kind == "loguniform" else tune.uniform)(*domain.values)


def _check_resources(resources: Resources) -> None:
    """Ray Tune waits for ever for what no machine has."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for name, wanted in (("CPU", resources.cpus_per_trial), ("GPU", resources.gpus_per_trial)):
        most = max((node.get(name, 0.0) for node in nodes), default=0.0)
        if wanted > most:
            raise ConfigError(f"a trial wants more {name}s than any node has", value=wanted, allowed=f"at most {most:g}")


def _resume(folder: Path) -> str:
    return f"{COMMAND.get()} resume {folder}"


def smoke(config: SweepConfig) -> SweepConfig:
    """The same sweep, cut down to what shows that everything works: 4 trials of at most 3 epochs."""
    return with_fit(config, max_epochs=3, patience=3).replaced(num_trials=4)
