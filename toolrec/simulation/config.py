"""All settings of one evaluation, resolved and checked before anything is started."""

from __future__ import annotations

import itertools
import math
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolrec.data import Split
from toolrec.errors import ConfigError
from toolrec.files import shared_path, under_job
from toolrec.llm.budget import Budget
from toolrec.llm.flow import MAX_CONCURRENCY, FlowSettings
from toolrec.llm.recording import read_header
from toolrec.llm.stores import ReplyStores
from toolrec.surrogate.config import FinishPolicy, ReplyProtocol

EMBEDDED = "embedded"
"""Stands in manifests for the embedded endpoint's address, which differs from run to run."""

RECORDED = "recording"
"""Stands there where no endpoint was asked."""

_AT_MOST = {
    "rounds": 1_000,
    "max_reasks": 100,
    "concurrency": 1_000_000,
    "llm_concurrency": MAX_CONCURRENCY,
    "actors": 4_096,
    "num_cpus": 65_536,
}
"""Beyond these a value is a slip: it would end in the middle of Ray, or never."""

MAX_DIGITS = 18
"""Nothing that is counted here has more digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationConfig:
    """How users are spread over actors; none of it changes a result.

    Args:
        concurrency: users in flight, over all actors.
        num_actors: simulation actors; None for one a core, spread over the nodes.
        max_attempts: attempts a user gets when actors die.
        block_users: finished users that are written together.
        block_interval_s: or this many seconds after the last block.
        flow: what may be asked of the LLM endpoint, over all actors.
        outage_timeout_s: seconds for which the endpoint may be down before the run stops, resumable.
        max_failed_requests: failed requests to the endpoint before the run stops, resumable; None for no limit.
        budget: what the run may spend.
    """

    concurrency: int = 64
    num_actors: int | None = None
    max_attempts: int = 5
    block_users: int = 200
    block_interval_s: float = 2.0
    flow: FlowSettings = field(default_factory=FlowSettings)
    outage_timeout_s: float = 600.0
    max_failed_requests: int | None = None
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        for name in ("concurrency", "max_attempts", "block_users"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1", value=getattr(self, name))
        if not (math.isfinite(self.outage_timeout_s) and self.outage_timeout_s > 0):
            raise ConfigError("outage_timeout_s must be a positive number of seconds", value=self.outage_timeout_s)
        if self.max_failed_requests is not None and self.max_failed_requests < 0:
            raise ConfigError("max_failed_requests must be at least 0", value=self.max_failed_requests)
        if self.num_actors is not None and self.num_actors < 1:
            raise ConfigError("num_actors must be at least 1", value=self.num_actors)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """Settings of `toolrec evaluate`; paths are absolute.

    Args:
        num_users: users to simulate; None for all.
        llm_url: base URL; None for the embedded rules, and where a recording answers.
        attributes: attribute tools; None for all.
        address: a running Ray; None for one of our own.
        others: see `toolrec evaluate --help`.
    """

    dataset: Path
    recommenders: Path
    run: Path
    resume: bool
    split: Split
    num_users: int | None
    seed: int
    attributes: tuple[str, ...] | None
    protocol: ReplyProtocol
    rounds: int
    prompt_history_length: int
    finish_policy: FinishPolicy
    mask_seen: bool
    max_reasks: int
    shuffle_rank_candidates: int | None
    user_token_budget: int | None
    user_timeout_s: float
    llm_url: str | None
    llm_model: str | None
    llm_key_env: str
    temperature: float | None
    llm_seed: int | None
    llm_max_output_tokens: int | None
    llm_max_attempts: int
    llm_max_malformed: int | None
    llm_max_failed_user: int
    max_failed_requests: int | None
    outage_timeout_s: float
    requests_per_minute: float | None
    tokens_per_minute: float | None
    llm_concurrency: int | None
    llm_timeout_s: float
    llm_check: bool
    strategy: str
    rank_tool: str
    baselines: tuple[str, ...]
    tools: str
    tools_config: Path | None
    keep_tools: bool
    concurrency: int
    actors: int | None
    address: str | None
    num_cpus: int | None
    metrics_port: int | None
    prices: Path | None = None
    budget_usd: float | None = None
    budget_tokens: int | None = None
    stores: ReplyStores = field(default_factory=ReplyStores)

    def __post_init__(self) -> None:
        if self.split not in ("test", "valid"):
            raise ConfigError("unknown split", value=self.split, allowed=("test", "valid"))
        if self.num_users is not None and self.num_users < 1:
            raise ConfigError("at least one user is needed", value=self.num_users)
        if self.stores.replay is None and (self.llm_url is None) != (self.llm_model is None):
            raise ConfigError("--llm-url and --llm-model go together", value=self.llm_url or self.llm_model)
        if self.keep_tools and (self.tools != "deploy" or (self.address is None and not under_job())):
            raise ConfigError("--keep-tools needs --tools deploy on a running Ray", hint="give its --address")
        if self.num_cpus is not None and self.num_cpus < 1:
            raise ConfigError("our own Ray needs at least one CPU", value=self.num_cpus)
        if self.seed < 0:
            raise ConfigError("--seed may not be negative", value=self.seed)
        for name, most in _AT_MOST.items():
            if (value := getattr(self, name)) is not None and value > most:
                raise ConfigError(f"--{name.replace('_', '-')} is too large", value=value, allowed=f"at most {most:,}")
        if self.metrics_port is not None and not 1 <= self.metrics_port <= 65535:
            raise ConfigError("not a port", value=self.metrics_port, allowed="1 to 65535")

    @property
    def endpoint(self) -> str:
        """The endpoint as manifests name it."""
        return RECORDED if self.stores.replay is not None else self.llm_url or EMBEDDED

    @property
    def is_embedded(self) -> bool:
        """Whether the embedded rules answer."""
        return self.endpoint == EMBEDDED

    @property
    def is_endpoint_tried(self) -> bool:
        """Whether a session begins with a call of the endpoint, and ends there where that fails."""
        return self.llm_url is not None and self.llm_check

    @classmethod
    def from_options(cls, **options: Any) -> EvaluationConfig:
        """From the command line's values: default paths, `all` users, comma-separated attributes.

        Raises:
            ConfigError: a value cannot be understood, or a path is relative in a submitted job.
        """
        dataset: Path = options.pop("dataset")
        recommenders = options.pop("recommenders") or Path("recommenders") / dataset.absolute().name
        run = options.pop("run")
        if run is None:
            if options["resume"]:
                raise ConfigError("--resume needs the run folder to go on with", hint="give it as --run")
            run = unused(Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{dataset.absolute().name}")
        stores = _reply_stores(options)
        attributes = options.pop("attributes")
        names = None if attributes is None else tuple(a.strip() for a in attributes.split(",") if a.strip())
        return cls(
            dataset=shared_path(dataset),
            recommenders=shared_path(recommenders),
            run=shared_path(run),
            num_users=_number_of_users(options.pop("users")),
            attributes=names,
            stores=stores,
            **options,
        )


def _reply_stores(options: dict[str, Any]) -> ReplyStores:
    """The stores of replies; a replay takes the model from its recording."""
    folders = {name: options.pop(name) for name in ("cache", "record", "replay")}
    max_age = options.pop("cache_max_age")
    if folders["replay"] is not None:
        if options["llm_url"] is not None or options["llm_model"] is not None:
            raise ConfigError("--replay asks no endpoint", hint="leave --llm-url, --llm-model and their variables out")
        options["llm_model"] = read_header(folders["replay"]).model
    return ReplyStores(
        endpoint=options["llm_url"] or EMBEDDED,
        max_age_s=None if max_age is None else _seconds(max_age),
        **{name: None if folder is None else str(shared_path(folder)) for name, folder in folders.items()},
    )


def _seconds(text: str) -> float:
    """A duration as people write it: `90s`, `30m`, `12h`, `7d`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None:
        raise ConfigError("not a duration", value=text, allowed="a number with s, m, h or d, as in 7d")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def _number_of_users(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal() or len(text) > MAX_DIGITS or int(text) < 1:
        raise ConfigError("not a number of users", value=text, allowed="a whole number from 1, or all")
    return int(text)


def unused(path: Path) -> Path:
    """The path, or the same with a number behind it where another run took it in the same second."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([path], numbered) if not candidate.exists())
