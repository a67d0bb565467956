"""A run's manifest: all that is needed to repeat it, and the key that says which runs may be resumed as it."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from toolrec import __version__
from toolrec.config import CompleteConfig
from toolrec.data import Dataset
from toolrec.data.splits import split_name
from toolrec.llm import LLMConfig
from toolrec.llm.prices import PriceTable
from toolrec.llm.stores.recording import RecordingHeader
from toolrec.llm.stores.recording import checksum as recording_checksum
from toolrec.llm.stores.storing import parameters_of
from toolrec.provenance import installed_packages, machine_facts, package_hash, part_hashes
from toolrec.runs.folder import SCHEMA_VERSION
from toolrec.surrogate.strategies import STRATEGY_SETTINGS, settings_of, takes_protocol
from toolrec.tools.templates import prompt_hashes
from toolrec.util.files import sha256_json
from toolrec.util.plugins import Kind, load_plugin

_PACKAGES = ("ray", "torch", "openai", "tenacity", "pandas", "pyarrow", "numpy", "scipy", "statsmodels", "rapidfuzz")


def run_manifest(
    config: CompleteConfig,
    *,
    dataset: Dataset,
    recommenders: dict[str, Any],
    llm: LLMConfig,
    prices: PriceTable | None = None,
) -> dict[str, Any]:
    """The manifest. `settings` are what changes results, flat; `resume_key` is their hash; no key is in it."""
    settings = result_settings(config, dataset=dataset, recommenders=recommenders, llm=llm)
    return {
        "schema_version": SCHEMA_VERSION,
        "resume_key": sha256_json(settings),
        "settings": settings,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": ["toolrec", *sys.argv[1:]],
        "config": config.as_json(),
        "prices": prices_facts(prices, llm.model),
        "dataset": {"path": str(config.dataset), "manifest": dataset.manifest},
        "recommenders": {"path": str(config.recommenders), "manifest": recommenders},
        "prompts": prompt_hashes(),
        "versions": {
            "toolrec": __version__,
            "commit": _commit(),
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "code": {"toolrec": package_hash(), **part_hashes(_own_parts(config))},
        "packages": installed_packages(),
        "machine": machine_facts(),
    }


def _own_parts(config: CompleteConfig) -> dict[str, Any]:
    """The parts that the settings name, the user's own among them."""
    named: list[tuple[Kind, str]] = [("strategy", config.surrogate.strategy), ("tool", config.tools.rank_tool)]
    named += [("recommender", path) for path in config.evaluation.baselines]
    return {name: load_plugin(kind, name) for kind, name in named}


def recording_header(manifest: dict[str, Any], llm: LLMConfig) -> RecordingHeader:
    """What a recording says of the run that made it; how many users there were and who answered may differ in a replay."""
    left_out = ("llm.base_url", "recording", "users")
    settings = {name: value for name, value in manifest["settings"].items() if name not in left_out}
    return RecordingHeader(model=llm.model, parameters=parameters_of(llm), settings=json.loads(json.dumps(settings)))


def prices_facts(prices: PriceTable | None, model: str) -> dict[str, Any] | None:
    """The price table's checksum and the model's own price, where there is one."""
    if prices is None:
        return None
    price = prices.price_of(model)
    return {"checksum": prices.checksum, "price": price.as_json() if price else None}


def result_settings(config: CompleteConfig, *, dataset: Dataset, recommenders: dict[str, Any], llm: LLMConfig) -> dict[str, Any]:
    """Everything that changes a result, by name."""
    return {
        "dataset_checksum": dataset.checksum,
        "recommenders_checksum": recommenders["checksum"],
        **config.result_settings(),
        "llm.base_url": config.endpoint,
        "llm.model": llm.model,
        "prompts": sha256_json(prompt_hashes()),
        **({} if config.stores.replay is None else {"recording": recording_checksum(config.stores.replay)}),
    }


def protocol_facts(config: CompleteConfig, manifest: dict[str, Any]) -> dict[str, Any]:
    """What must stand beside every figure of the run, in the order in which it is shown."""
    settings = manifest["settings"]
    surrogate = {name.removeprefix("surrogate."): value for name, value in settings.items() if name.startswith("surrogate.")}
    strategy = settings["strategy"]
    for name in STRATEGY_SETTINGS - settings_of(strategy):
        surrogate.pop(name, None)
    if not takes_protocol(strategy):
        surrogate["protocol"] = "plain text"
        for name in {"rounds", "finish_policy"} - settings_of(strategy):
            surrogate.pop(name)
    data_set = manifest["dataset"]["manifest"]
    kind = data_set.get("split", "leave_one_out")
    return {
        "split": settings["split"],
        "data_split": split_name(kind, data_set.get("split_settings") or {}) if kind != "leave_one_out" else None,
        "users": settings["users"],
        "seed": settings["seed"],
        "mask_seen": surrogate.pop("mask_seen"),
        "model_history_length": manifest["recommenders"]["manifest"]["model_history_length"],
        "prompt_history_length": surrogate.pop("prompt_history_length"),
        "model": settings["llm.model"],
        "llm_url": settings["llm.base_url"],
        "recording": settings.get("recording", "")[:16] or None,
        "stored_replies": config.stores.facts() or None,
        "temperature": settings["llm.temperature"],
        "llm_seed": settings["llm.seed"],
        **surrogate,
        "attributes": settings["attributes"],
        "strategy": strategy,
        "compat": config.compat,
        "rank_tool": settings["rank_tool"],
        "tools": config.tools.mode,
        **config.stress.facts(),
        "dataset_checksum": settings["dataset_checksum"][:16],
        "recommenders_checksum": settings["recommenders_checksum"][:16],
    }


def _commit() -> str | None:
    """The checkout's commit, marked where files were changed; None outside a checkout."""
    folder = Path(__file__).parent
    try:
        said = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.stdout.strip() or None
