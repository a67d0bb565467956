"""A run's manifest: all that is needed to repeat it, and the key that says which runs may be resumed as it."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from toolrec import __version__
from toolrec.data import Dataset
from toolrec.files import sha256_json
from toolrec.llm import LLMConfig
from toolrec.llm.prices import Price, PriceTable, price_from_json
from toolrec.llm.recording import RecordingHeader
from toolrec.llm.recording import checksum as recording_checksum
from toolrec.llm.stored import parameters_of
from toolrec.simulation.config import EvaluationConfig
from toolrec.simulation.run_folder import SCHEMA_VERSION
from toolrec.surrogate import SurrogateConfig, prompt_hashes

_PACKAGES = ("ray", "torch", "openai", "tenacity", "pandas", "pyarrow", "numpy", "rapidfuzz")


def run_manifest(
    config: EvaluationConfig,
    *,
    dataset: Dataset,
    recommenders: dict[str, Any],
    surrogate: SurrogateConfig,
    llm: LLMConfig,
    prices: PriceTable | None = None,
) -> dict[str, Any]:
    """The manifest. `settings` are what changes results, flat; `resume_key` is their hash; no key is in it."""
    settings = result_settings(config, dataset=dataset, recommenders=recommenders, surrogate=surrogate, llm=llm)
    return {
        "schema_version": SCHEMA_VERSION,
        "resume_key": sha256_json(settings),
        "settings": settings,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": ["toolrec", *sys.argv[1:]],
        "execution": {
            "tools": config.tools,
            "baselines": list(config.baselines),
            "concurrency": config.concurrency,
            "actors": config.actors,
            "address": config.address,
            "llm_timeout_s": config.llm_timeout_s,
            "llm_max_attempts": config.llm_max_attempts,
            "llm_max_malformed": config.llm_max_malformed,
            "llm_max_failed_user": config.llm_max_failed_user,
            "max_failed_requests": config.max_failed_requests,
            "outage_timeout_s": config.outage_timeout_s,
            "requests_per_minute": config.requests_per_minute,
            "tokens_per_minute": config.tokens_per_minute,
            "llm_concurrency": config.llm_concurrency,
            "budget_usd": config.budget_usd,
            "budget_tokens": config.budget_tokens,
            "stored_replies": config.stores.as_json(),
        },
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
    }


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


def stored_price(manifest: dict[str, Any]) -> Price | None:
    """The model's price as it was known when the run was started."""
    price = (manifest.get("prices") or {}).get("price")
    return price_from_json(price) if price else None


def result_settings(
    config: EvaluationConfig, *, dataset: Dataset, recommenders: dict[str, Any], surrogate: SurrogateConfig, llm: LLMConfig
) -> dict[str, Any]:
    """Everything that changes a result, by name."""
    return {
        "dataset_checksum": dataset.checksum,
        "recommenders_checksum": recommenders["checksum"],
        "split": config.split,
        "users": config.num_users or "all",
        "seed": config.seed,
        "attributes": list(config.attributes) if config.attributes is not None else "all",
        **{f"surrogate.{name}": value for name, value in asdict(surrogate).items()},
        "llm.base_url": config.endpoint,
        "llm.model": llm.model,
        "llm.temperature": llm.temperature,
        "llm.seed": llm.seed,
        "llm.max_output_tokens": llm.max_output_tokens,
        "strategy": config.strategy,
        "rank_tool": config.rank_tool,
        "prompts": sha256_json(prompt_hashes()),
        **({"recording": recording_checksum(Path(config.stores.replay))} if config.stores.replay is not None else {}),
    }


def protocol_facts(config: EvaluationConfig, manifest: dict[str, Any]) -> dict[str, Any]:
    """What must stand beside every figure of the run, in the order in which it is shown."""
    settings = manifest["settings"]
    surrogate = {name.removeprefix("surrogate."): value for name, value in settings.items() if name.startswith("surrogate.")}
    return {
        "split": config.split,
        "users": settings["users"],
        "seed": config.seed,
        "mask_seen": surrogate.pop("mask_seen"),
        "model_history_length": manifest["recommenders"]["manifest"]["model_history_length"],
        "prompt_history_length": surrogate.pop("prompt_history_length"),
        "model": settings["llm.model"],
        "llm_url": settings["llm.base_url"],
        "recording": settings.get("recording", "")[:16] or None,
        "stored_replies": config.stores.as_json() or None,
        "temperature": settings["llm.temperature"],
        "llm_seed": settings["llm.seed"],
        **surrogate,
        "attributes": settings["attributes"],
        "strategy": config.strategy,
        "rank_tool": config.rank_tool,
        "tools": config.tools,
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
