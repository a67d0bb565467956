"""All settings of one evaluation: a tree whose branches belong to the packages that use them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import model_validator

from toolrec.connect import RaySettings
from toolrec.errors import ConfigError
from toolrec.evaluation.config import EvaluationSettings
from toolrec.llm.config import LLMConfig, LLMSettings
from toolrec.llm.embedded.policy import MODEL_NAME
from toolrec.llm.flow.budget import BudgetSettings
from toolrec.llm.flow.governor import FlowSettings
from toolrec.llm.stores.config import ReplyStores, StoreSettings
from toolrec.llm.stores.recording import read_header
from toolrec.presets import with_preset
from toolrec.simulation.config import SimulationSettings, ToolsSettings
from toolrec.stress.config import StressSettings
from toolrec.surrogate.config import SurrogateConfig
from toolrec.util.files import shared_path, under_job
from toolrec.util.settings import REQUIRED, Settings, branch, declared_in, setting
from toolrec.util.settings_sources import flattened, read_mapping

EMBEDDED = "embedded"
"""Stands in manifests for the embedded endpoint's address, which differs from run to run."""

RECORDED = "recording"
"""Stands there where no endpoint was asked."""


class RunConfig(Settings):
    """Settings of one evaluation; `completed` fills in the default paths."""

    dataset: Path = setting(REQUIRED, "Data set folder, as `toolrec data prepare` writes it.", argument="DIR")
    recommenders: Path | None = setting(None, "Recommenders' folder; default recommenders/NAME.", flag="--recommenders")
    run: Path | None = setting(None, "Run folder; default runs/TIME-NAME.", flag="--run", is_output=True)
    resume: bool = setting(False, "Continue the run in the folder given by --run.", flag="--resume", is_output=True)
    compat: Literal["authors"] | None = setting(
        None,
        "Preset of settings: `authors` does as the method's published code does. What is given explicitly wins.",
        flag="--compat",
    )
    accept_changes: bool = setting(
        False,
        "Resume a run although the code or the learned fusions have changed since; its manifest keeps both.",
        flag="--accept-changes",
        is_output=True,
    )
    evaluation: EvaluationSettings = branch(EvaluationSettings, "Which users are evaluated, and which baselines.")
    surrogate: SurrogateConfig = branch(SurrogateConfig, "How the surrogate decides and how its tools answer.")
    llm: LLMSettings = branch(LLMSettings, "How the LLM endpoint is called.")
    flow: FlowSettings = branch(FlowSettings, "Limits on requests to the endpoint, over all nodes.")
    budget: BudgetSettings = branch(BudgetSettings, "Budget of the run.")
    stores: StoreSettings = branch(StoreSettings, "Caching, recording and replaying replies.")
    tools: ToolsSettings = branch(ToolsSettings, "Where the tools come from.")
    simulation: SimulationSettings = branch(SimulationSettings, "How users are spread over actors.")
    stress: StressSettings = branch(StressSettings, "What is spoilt on purpose, in robustness experiments.")
    ray: RaySettings = branch(RaySettings, "Which Ray the run uses.")

    @model_validator(mode="before")
    @classmethod
    def _on_its_preset(cls, values: Any) -> Any:
        return with_preset(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        llm = self.llm
        if self.stores.replay is None:
            llm.refuse_half_an_endpoint()
        if self.stores.replay is not None and (llm.base_url is not None or llm.model is not None):
            raise ConfigError("--replay asks no endpoint", hint="leave --llm-url, --llm-model and their variables out")
        if self.tools.keep and (self.tools.mode != "deploy" or (self.ray.address is None and not under_job())):
            raise ConfigError("--keep-tools needs --tools deploy on a running Ray", hint="give its --address")
        if self.resume and self.run is None:
            raise ConfigError("--resume needs the run folder to go on with", hint="give it as --run")
        return self

    @property
    def endpoint(self) -> str:
        """The endpoint as manifests name it."""
        return RECORDED if self.stores.replay is not None else self.llm.base_url or EMBEDDED

    @property
    def is_embedded(self) -> bool:
        """Whether the embedded rules answer."""
        return self.endpoint == EMBEDDED

    @property
    def is_endpoint_tried(self) -> bool:
        """Whether a session begins with a call of the endpoint, and ends there where that fails."""
        return self.llm.base_url is not None and self.llm.check

    def completed(self) -> CompleteConfig:
        """The same with every path absolute and the default folders filled in.

        Raises:
            ConfigError: a path is relative in a submitted job.
        """
        name = self.dataset.absolute().name
        run = self.run or unused(Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}")
        recommenders = self.recommenders or Path("recommenders") / name
        filled = self.replaced(run=run, recommenders=recommenders)
        paths = [(one, one.value_in(filled)) for one in declared_in(RunConfig) if one.kind is Path]
        shared = {one.key: shared_path(path, flag=one.flag) for one, path in paths if path is not None}
        return filled.replaced(**shared).extended(CompleteConfig)

    def result_settings(self) -> dict[str, Any]:
        """Every setting that changes results, by the name that manifests give it."""
        return {
            one.stored_as: one.none_word if (value := one.value_in(self)) is None else _plain(value)
            for one in declared_in(RunConfig)
            if one.changes_results
        }

    def llm_config(self) -> LLMConfig:
        """The LLM client's settings; the embedded endpoint's address is known only when it runs.

        Raises:
            RecordingError: the recording to answer from cannot be read.
        """
        recorded = None if self.stores.replay is None else read_header(self.stores.replay).model
        return self.llm.extended(
            LLMConfig,
            base_url=self.llm.base_url or "http://127.0.0.1/v1",
            model=recorded or self.llm.model or MODEL_NAME,
            api_key_env=self.llm.api_key_env if self.llm.base_url else "",  # no key goes to the embedded rules
            concurrency=self.simulation.concurrency,
        )

    def reply_stores(self) -> ReplyStores:
        """The stores that the run's calls go through."""
        return self.stores.extended(ReplyStores, endpoint=self.llm.base_url or EMBEDDED)


class CompleteConfig(RunConfig):
    """The settings of one evaluation with all paths known and absolute."""

    recommenders: Path = setting(REQUIRED, "Recommenders' folder.")
    run: Path = setting(REQUIRED, "Run folder.", is_output=True)

    @property
    def folder(self) -> Path:
        """Where the run folder is written on this machine: `run`, or its working folder where that is a URL."""
        from toolrec.runs.mirror import working_folder

        return working_folder(self.run)


def read_run_config(path: Path) -> dict[str, Any]:
    """The values of a YAML or JSON file or of a run's manifest, by key; of a manifest, without what says where its own run wrote.

    Raises:
        ConfigError: it cannot be read, or is the manifest of something else or of another version.
    """
    content = read_mapping(path)
    if "resume_key" not in content:
        return flattened(RunConfig, content)
    from toolrec.runs.folder import SCHEMA_VERSION

    if content.get("schema_version") != SCHEMA_VERSION:
        raise ConfigError(
            "this manifest has another layout",
            value=f"schema_version {content.get('schema_version')} in {path}",
            allowed=SCHEMA_VERSION,
            hint="repeat the run with the version of toolrec that made it",
        )
    stored = content.get("config")
    if not isinstance(stored, dict):
        raise ConfigError(
            "this manifest holds no configuration, as it was written by an earlier version of toolrec",
            value=str(path),
            hint="its `command` says how the run was started",
        )
    outputs = {one.key for one in declared_in(RunConfig) if one.is_output}
    return {key: value for key, value in flattened(RunConfig, stored).items() if key not in outputs}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def unused(path: Path) -> Path:
    """The path, or the same with a number behind it where another run took it in the same second."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([path], numbered) if not candidate.exists())
